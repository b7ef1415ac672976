//! What the agent says of live processes: which there are, what they are taken for, and why.

use std::process::Command;

use ringfence_proto::{text::is_hostile, v1::LiveProcess};
use ringfence_tests::{
    Agent, Running,
    policy::{policy, workload, workloads},
    poll::until,
    program, scene,
};

fn pids(processes: &[LiveProcess]) -> Vec<u32> {
    processes.iter().map(|process| process.pid).collect()
}

/// The command line's answer; panics unless it ended with `code`.
#[track_caller]
fn ringfence(agent: &Agent, code: i32, words: &[&str]) -> String {
    let output = Command::new(program::product("ringfence"))
        .args(words)
        .arg("--socket")
        .arg(agent.socket())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(output.status.code(), Some(code), "{words:?}: {text}");
    text
}

#[test]
fn a_workload_is_listed_with_exactly_its_processes_and_listeners() {
    scene("inventory", |sandbox| {
        let (web, db) = (sandbox.actor("web"), sandbox.actor("db"));
        let exe = format!("cgroup = \"/db\", exe = \"{}\"", db.program().display());
        let policies = workloads(&["web"]) + &workload("db", &exe);
        let agent = Agent::start(sandbox, &policies);
        let servers = [
            web.serve(&["tcp", "127.0.0.1:7300", "--echo"]),
            web.serve(&["udp", "[::1]:7301"]),
        ];
        let database = db.serve(&["tcp", "127.0.0.1:5432"]);
        // In the cgroup of db, and not its executable.
        let intruder = web
            .in_cgroup(sandbox, "db")
            .serve(&["tcp", "127.0.0.1:7302"]);
        let client = db.hold("127.0.0.1:7300");

        let mut expected: Vec<u32> = servers.iter().map(Running::pid).collect();
        expected.sort_unstable();
        let found = agent.client().processes(&["web"]).unwrap();
        assert_eq!(pids(&found), expected);
        for process in &found {
            assert_eq!(
                (process.command.as_str(), process.cgroup.as_str()),
                ("web", "/web")
            );
            assert_eq!(process.executable, web.program().to_str().unwrap());
            assert_eq!((process.uid, process.user.as_str()), (0, "root"));
            let checks: Vec<_> = process
                .selectors
                .iter()
                .map(|it| (it.key.as_str(), it.matched))
                .collect();
            assert_eq!(checks, [("cgroup", true)]);
        }
        // The listener, and what it has accepted.
        let sockets: Vec<u32> = found.iter().map(|process| process.sockets).collect();
        assert_eq!(sockets.iter().sum::<u32>(), 3, "{found:#?}");

        let mut expected = vec![database.pid(), client.pid()];
        expected.sort_unstable();
        until("the executable is judged", || {
            pids(&agent.client().processes(&["db"]).unwrap()) == expected
        });
        let host = agent.client().processes(&["host"]).unwrap();
        assert!(pids(&host).contains(&intruder.pid()), "{host:#?}");

        let identities = agent.client().identities().unwrap();
        let of = |name: &str| {
            let found = identities.iter().find(|it| it.name == name).unwrap();
            (found.kind.clone(), found.processes, found.cgroups)
        };
        assert_eq!(of("web"), ("workload".to_owned(), 2, 1));
        assert_eq!(of("db"), ("workload".to_owned(), 2, 0));
        assert_eq!(of("world"), ("reserved".to_owned(), 0, 0));

        let text = ringfence(&agent, 0, &["workload", "list"]);
        assert!(
            text.contains("tcp 127.0.0.1:7300, udp [::1]:7301"),
            "{text}"
        );
        let text = ringfence(&agent, 0, &["workload", "list", "web"]);
        for server in &servers {
            assert!(text.contains(&server.pid().to_string()), "{text}");
        }
        assert!(!text.contains("5432"), "{text}");
        let text = ringfence(&agent, 0, &["workload", "list", "host"]);
        assert!(text.starts_with("host: identity 1, "), "{text}");
        assert!(text.contains(&intruder.pid().to_string()), "{text}");
        let text = ringfence(&agent, 2, &["workload", "list", "weeb"]);
        assert!(text.contains("did you mean web?"), "{text}");

        drop(servers);
        assert!(agent.client().processes(&["web"]).unwrap().is_empty());
        drop(client);
    });
}

#[test]
fn explain_names_the_selector_that_failed_and_what_becomes_of_a_flow() {
    scene("explain-pid", |sandbox| {
        let (web, db) = (sandbox.actor("web"), sandbox.actor("db"));
        let exe = format!("cgroup = \"/db\", exe = \"{}\"", db.program().display());
        let egress = [(
            "egress",
            "to = [{ workload = \"db\" }]\nports = [\"5432/tcp\"]",
        )];
        let policies = workloads(&["web"]) + &workload("db", &exe) + &policy("web", "", &egress);
        let agent = Agent::start(sandbox, &policies);

        let impostor = web
            .in_cgroup(sandbox, "db")
            .serve(&["tcp", "127.0.0.1:7400"]);
        let explain = || {
            agent
                .client()
                .explain_process(impostor.pid(), "", 0)
                .unwrap()
        };
        // Its executable is judged when it starts, which takes a moment.
        until("the impostor is judged", || {
            !explain().reason.contains("not been judged")
        });
        let answer = explain();
        let process = answer.process.unwrap();
        assert_eq!(
            (process.workload.as_str(), answer.reason.as_str()),
            ("host", "no workload matches")
        );
        let near: Vec<_> = answer.candidates.iter().filter(|it| !it.matched).collect();
        let [near] = near.as_slice() else {
            panic!("one near miss: {:#?}", answer.candidates)
        };
        assert_eq!(near.workload, "db");
        let failed: Vec<_> = near.selectors.iter().filter(|it| !it.matched).collect();
        let [failed] = failed.as_slice() else {
            panic!("one selector fails: {near:#?}")
        };
        assert_eq!(failed.key, "exe");
        assert_eq!(failed.wanted, db.program().to_str().unwrap());
        assert_eq!(failed.found, web.program().to_str().unwrap());
        let text = ringfence(
            &agent,
            0,
            &["explain", "--pid", &impostor.pid().to_string()],
        );
        assert!(text.contains("db nearly matches"), "{text}");

        // The flow of a process is judged as its traffic is.
        let _database = db.serve(&["tcp", "127.0.0.1:5432"]);
        let server = web.serve(&["tcp", "127.0.0.1:7401"]);
        let pid = server.pid();
        let flow = |to, port| {
            agent
                .client()
                .explain_process(pid, to, port)
                .unwrap()
                .flow
                .unwrap()
        };
        assert!(flow("db", 5432).allowed);
        assert!(!flow("db", 5433).allowed);
        let _ = web
            .tcp("127.0.0.1:5432", &[])
            .expect_ok("what is explained as allowed");
        let text = pid.to_string();
        let question = ["explain", "--pid", &text, "--to", "db", "--port", "5433"];
        assert!(ringfence(&agent, 1, &question).contains("DENY web -> db 5433/tcp"));

        let told = |pid: u32| agent.client().explain_process(pid, "", 0).unwrap_err();
        let stranger = sandbox
            .stranger("stranger")
            .serve(&["tcp", "127.0.0.1:7402"]);
        assert!(told(stranger.pid()).contains("outside of the guarded root"));
        let gone = stranger.pid();
        drop(stranger);
        assert!(told(gone).contains("there is no process"));
    });
}

#[test]
fn names_that_a_terminal_would_obey_are_shown_harmless() {
    scene("hostile", |sandbox| {
        let name = "w\u{1b}[2J\u{9b}31m\u{202e}x";
        let web = sandbox
            .actor(name)
            .in_cgroup(sandbox, &format!("web/{name}"));
        let agent = Agent::start(sandbox, &workload("web", "cgroup = \"/web/*\""));
        let mut held = web.start(&["listen", "tcp", "127.0.0.1:7500"]);
        let _ready = held.line().expect_ok("a socket");
        let pid = held.pid().to_string();
        for words in [
            &["workload", "list"][..],
            &["workload", "list", "web"],
            &["explain", "--pid", &pid],
            &["identity", "list"],
            &["endpoint", "list"],
            &["observe"],
            &["status"],
        ] {
            for format in ["table", "compact", "json"] {
                let text = ringfence(&agent, 0, &[words, &["-o", format]].concat());
                let hostile = text.chars().find(|c| *c != '\n' && is_hostile(*c));
                assert_eq!(hostile, None, "{words:?} {format}: {text:?}");
            }
        }
        let json = ringfence(&agent, 0, &["workload", "list", "web", "-o", "json"]);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let cgroup = value.pointer("/0/processes/0/cgroup").unwrap();
        assert_eq!(cgroup, &format!("/web/{name}"), "JSON keeps what there is");
    });
}

#[test]
fn two_thousand_processes_are_listed_while_some_of_them_end() {
    scene("many", |sandbox| {
        const NUMBER: usize = 2000;
        let web = sandbox.actor("web");
        let agent = Agent::start(sandbox, &workloads(&["web"]));
        let script = format!(
            "i=0; while [ $i -lt {NUMBER} ]; do sleep 1000 & i=$((i+1)); done; echo ready; wait"
        );
        let mut shell = web.start(&["run", "sh", "-c", &script]);
        let _ready = shell.line();
        let found = agent.client().processes(&["web"]).unwrap();
        // The shell is one of them.
        assert_eq!(found.len(), NUMBER + 1);
        assert!(found.is_sorted_by(|a, b| a.pid < b.pid));

        // They end under the eyes of whoever lists them: each list is whole, and shorter than the one before.
        let kill = sandbox.cgroup("web").join("cgroup.kill");
        let ending = std::thread::spawn(move || std::fs::write(kill, "1"));
        let mut last = found.len();
        until("none is left", || {
            let now = agent.client().processes(&["web"]).unwrap().len();
            assert!(now <= last, "{now} after {last}");
            last = now;
            now == 0
        });
        ending.join().unwrap().unwrap();
    });
}
