//! The agent goes, enforcement stays; the agent comes back, nothing is lost.

use std::{fs, path::PathBuf, process::Command};

use ringfence_agent::datapath::pins;
use ringfence_tests::{
    Agent, Options,
    flows::direction,
    policy::{policy, workload, workloads},
    poll::until,
    program, scene,
};

use crate::common::{assert_allowed, assert_refused, three_policies, three_tiers};

const AT_DB: &str = "127.0.0.1:5432";

#[test]
fn kill_9_changes_nothing_and_a_restart_loses_no_record() {
    scene("kill", |sandbox| {
        let (web, api, db) = (
            sandbox.actor("web"),
            sandbox.actor("api"),
            sandbox.actor("db"),
        );
        let mut agent = Agent::start(sandbox, &three_tiers());
        let generation = agent.status().generation;
        let _echo = db.serve(&["tcp", AT_DB, "--echo"]);
        let mut stream = api.hold(AT_DB);
        // What was recorded before is in the log of the agent that is gone.
        let _ = agent.log();
        agent.kill();

        let mut expected = Vec::new();
        for _ in 0..20 {
            let refused = assert_refused(&web, AT_DB, &[]);
            expected.push(format!(
                "deny egress tcp web -> db {AT_DB} deny default-deny {}",
                web.by(refused.pid)
            ));
            let passed = api.tcp(AT_DB, &["--send", "2", "--expect", "2"]);
            let passed = passed.expect_ok("api calls db without an agent");
            let flow = format!("egress tcp api -> db {AT_DB} allow rule-allow api/egress[0]");
            let by = api.by(passed.pid);
            expected.push(format!("open {flow} {by}"));
            expected.push(format!("close {flow} 2/2B {by}"));
        }
        assert!(stream.is_alive(), "cut by the death of the agent");

        agent.restart();
        assert!(
            agent.status().generation >= generation,
            "{:?}",
            agent.status()
        );
        agent.assert_log_of(&expected, |flow| direction(flow) == "egress");
        assert!(stream.is_alive(), "cut by the restart");
        let _ = assert_refused(&web, AT_DB, &[]);
        let _ = api
            .tcp(AT_DB, &[])
            .expect_ok("api calls db after the restart");

        // The flow that outlived the agent has its end in the log, with all its bytes.
        stream.kill();
        let start = format!("close egress tcp api -> db {AT_DB} allow rule-allow api/egress[0] ");
        let by = api.by(stream.pid());
        until("the close record of the flow that was adopted", || {
            let log = agent.client().flows(Vec::new()).unwrap();
            let mut lines = log.iter().map(ringfence_tests::flows::line);
            lines.any(|line| line.starts_with(&start) && line.ends_with(&by))
        });
    });
}

#[test]
fn sigterm_keeps_enforcement_and_exits_0() {
    scene("sigterm", |sandbox| {
        let (web, db) = (sandbox.actor("web"), sandbox.actor("db"));
        let mut agent = Agent::start(sandbox, &three_tiers());
        let _server = db.serve(&["tcp", AT_DB]);
        let _ = assert_refused(&web, AT_DB, &[]);
        // Once it is read; what is not waits for the next agent.
        assert_eq!(agent.log().len(), 1, "{:#?}", agent.log());
        let status = agent.terminate();
        assert_eq!(status.code(), Some(0), "{}", agent.daemon().log());
        assert!(!agent.socket().exists(), "the socket stays");
        let _ = assert_refused(&web, AT_DB, &[]);
        agent.restart();
        let _ = assert_refused(&web, AT_DB, &[]);
        assert_eq!(agent.log().len(), 2, "{:#?}", agent.log());
    });
}

#[test]
fn a_second_agent_is_refused_and_the_first_goes_on() {
    scene("second", |sandbox| {
        let (web, db) = (sandbox.actor("web"), sandbox.actor("db"));
        let agent = Agent::start(sandbox, &three_tiers());
        let _server = db.serve(&["tcp", AT_DB]);
        // Another socket, another metrics port, the same pins.
        let config = std::fs::read_to_string(agent.config()).unwrap();
        let second = sandbox.files().join("second");
        std::fs::create_dir_all(second.join("policy.d")).unwrap();
        let path = second.join("agent.toml");
        let metrics = config
            .lines()
            .find(|line| line.starts_with("listen"))
            .unwrap();
        std::fs::write(&path, config.replace(metrics, "listen = \"\"")).unwrap();
        let arguments = ["agent".into(), "--config".into(), path.into()];
        let ended = ringfence_tests::daemon::Daemon::start("ringfence", &arguments, &second);
        let ended = ended.err().unwrap();
        assert!(
            ended.status.code().is_some_and(|code| code != 0),
            "{ended:?}"
        );
        let _ = assert_refused(&web, AT_DB, &[]);
        assert_eq!(agent.log().len(), 1);
        agent.assert_counters();
    });
}

#[test]
fn the_socket_of_a_dead_agent_is_replaced() {
    scene("stale", |sandbox| {
        let dir = sandbox.files().join("agent");
        std::fs::create_dir_all(&dir).unwrap();
        drop(std::os::unix::net::UnixListener::bind(dir.join("agent.sock")).unwrap());
        let agent = Agent::start_with(sandbox, &Options::default(), &three_tiers());
        assert_eq!(agent.status().workloads, 3);
    });
}

#[test]
fn an_agent_of_another_version_is_followed_without_a_gap() {
    scene("version", |sandbox| {
        let (web, api, db) = (
            sandbox.actor("web"),
            sandbox.actor("api"),
            sandbox.actor("db"),
        );
        let mut agent = Agent::start(sandbox, &three_tiers());
        let _echo = db.serve(&["tcp", AT_DB, "--echo"]);
        let mut stream = api.hold(AT_DB);
        agent.kill();
        // Pins of another version, with programs that go on enforcing the policy of then.
        let pins = fs::read_dir(sandbox.pins()).unwrap();
        let own = pins.map(|pin| pin.unwrap().path()).next().unwrap();
        let other = sandbox.pins().join("v999");
        fs::rename(&own, &other).unwrap();
        let _ = assert_refused(&web, AT_DB, &[]);

        let from_web = three_policies("5432/tcp").replace(
            "from = [{ workload = \"api\" }]",
            "from = [{ workload = \"api\" }, { workload = \"web\" }]",
        );
        let open = from_web.replace("to = [{ workload = \"api\" }]\nports = [\"8080/tcp\"]", "");
        agent.write_policy(&(workloads(&["web", "api", "db"]) + &open));
        agent.restart();
        assert!(own.is_dir() && !other.exists(), "{own:?} {other:?}");
        let _ = web.tcp(AT_DB, &[]).expect_ok("by the policy of now");
        assert!(stream.is_alive(), "cut by the new version");
        agent.set_policy(&three_tiers());
        let _ = assert_refused(&web, AT_DB, &[]);
        assert!(stream.is_alive(), "cut by a policy that allows it");
        agent.assert_counters();
    });
}

#[test]
fn sizes_that_pinned_maps_do_not_have_are_warned_of() {
    scene("sizes", |sandbox| {
        let web = sandbox.actor("web");
        let mut agent = Agent::start(sandbox, &three_tiers());
        let about_maps = |agent: &Agent| {
            let mut warnings = agent.status().warnings;
            warnings.retain(|warning| warning.contains("map in force"));
            warnings
        };
        assert_eq!(about_maps(&agent), [""; 0]);
        let smaller = "[flows]\nevents-buffer = \"64 KiB\"\nflow-entries = 1000".to_owned();
        let options = Options {
            sections: smaller,
            ..Options::default()
        };
        agent.configure(sandbox, &options);
        agent.kill();
        agent.restart();
        let warnings = about_maps(&agent);
        let [events, flows] = warnings.as_slice() else {
            panic!("{warnings:?}");
        };
        for (warning, parts) in [
            (events, ["events-buffer", "65536 bytes", "4194304"]),
            (flows, ["flow-entries", "1000 entries", "65536"]),
        ] {
            assert!(parts.iter().all(|part| warning.contains(part)), "{warning}");
            assert!(warning.contains("ringfence detach"), "{warning}");
            assert!(agent.daemon().log().contains(warning.as_str()), "{warning}");
        }
        let _ = assert_refused(&web, AT_DB, &[]);

        // The remedy is one.
        agent.kill();
        let output = Command::new(program::product("ringfence"))
            .arg("detach")
            .arg("--config")
            .arg(agent.config())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        agent.restart();
        assert_eq!(about_maps(&agent), [""; 0]);
        let _ = assert_refused(&web, AT_DB, &[]);
    });
}

#[test]
fn a_root_that_is_no_longer_guarded_is_warned_of() {
    scene("moved-root", |sandbox| {
        let web = sandbox.actor("web");
        let mut agent = Agent::start(sandbox, &three_tiers());
        let (old, new) = (sandbox.guarded(), sandbox.cgroup("api"));
        let guard = |root: &std::path::Path| Options {
            agent: format!("cgroup-root = \"{}\"", root.display()),
            ..Options::default()
        };
        let about_root = |agent: &Agent| {
            let mut warnings = agent.status().warnings;
            warnings.retain(|warning| warning.contains("cgroup-root"));
            warnings
        };
        assert_eq!(about_root(&agent), [""; 0]);
        let _ = assert_refused(&web, AT_DB, &[]);
        agent.configure(sandbox, &guard(&new));
        agent.kill();
        agent.restart();
        let warnings = about_root(&agent);
        let [warning] = warnings.as_slice() else {
            panic!("{warnings:?}");
        };
        for path in [old, &new] {
            assert!(
                warning.contains(&format!("{} ", path.display())),
                "{warning}"
            );
        }
        assert!(agent.daemon().log().contains(warning.as_str()), "{warning}");
        let _ = assert_allowed(&web, AT_DB, &[]);

        // Back to the directory above: nothing is lost.
        agent.configure(sandbox, &guard(old));
        agent.kill();
        agent.restart();
        assert_eq!(about_root(&agent), [""; 0]);
        let _ = assert_refused(&web, AT_DB, &[]);
    });
}

#[test]
fn pins_that_someone_removes_come_back() {
    scene("unpinned", |sandbox| {
        let (web, api, db) = (
            sandbox.actor("web"),
            sandbox.actor("api"),
            sandbox.actor("db"),
        );
        let mut agent = Agent::start(sandbox, &three_tiers());
        let _echo = db.serve(&["tcp", AT_DB, "--echo"]);
        let mut stream = api.hold(AT_DB);
        let listed = || {
            let mut pins = Vec::new();
            let mut pending = vec![sandbox.pins()];
            while let Some(directory) = pending.pop() {
                for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        pending.push(entry.path());
                    } else {
                        pins.push(entry.path());
                    }
                }
            }
            pins.sort();
            pins
        };
        let links = agent.status().hooks;
        // One is for the loopback device, once the namespace holds the server.
        let all = pins::maps().count() + links.len() + 1;
        until("all pins are there", || listed().len() == all);
        let before = listed();
        // Everything at one stroke, and then one of each.
        let gone = PathBuf::from(format!("{}-gone", sandbox.pins().display()));
        fs::rename(sandbox.pins(), &gone).unwrap();
        fs::remove_dir_all(&gone).unwrap();
        until("all pins are back", || listed() == before);
        for name in ["egress", "SOCKETS"] {
            let pin = before.iter().find(|pin| pin.ends_with(name)).unwrap();
            fs::remove_file(pin).unwrap();
        }
        until("both pins are back", || listed() == before);
        let restored = u64::try_from(before.len() + 2).unwrap();
        until("they are counted", || {
            agent.status().counts.get("pins-restored") == Some(&restored)
        });
        assert_eq!(agent.status().hooks, links, "other programs or links");
        assert_eq!(
            agent.metrics().sum("ringfence_pins_restored_total", &[]),
            restored
        );
        assert_eq!(
            agent.metrics().sum("ringfence_hooks_reattached_total", &[]),
            0
        );
        assert!(
            agent
                .daemon()
                .log()
                .contains("pins were removed by someone else")
        );
        // The directory is another one, and locked as the one before was.
        let output = Command::new(program::product("ringfence"))
            .arg("detach")
            .arg(format!("--pin-dir={}", sandbox.pins().display()))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");

        agent.kill();
        let _ = assert_refused(&web, AT_DB, &[]);
        assert!(stream.is_alive(), "cut by the death of the agent");
        agent.restart();
        let _ = assert_refused(&web, AT_DB, &[]);
        assert!(stream.is_alive(), "cut by the restart");
        assert_eq!(listed(), before);
    });
}

#[test]
fn a_restart_without_a_workload_judges_its_open_sockets_as_who_they_are_now() {
    scene("dropped", |sandbox| {
        let (web, db) = (sandbox.actor("web"), sandbox.actor("db"));
        let allowed = workloads(&["web"]) + &policy("web", "", &[("egress", "")]);
        let by_address = "to = [{ cidr = \"127.0.0.0/8\" }]\nports = [\"5433/tcp\"]";
        let denied = |name: &str| {
            workload(name, "cgroup = \"/web\"") + &policy(name, "", &[("egress", by_address)])
        };
        let mut agent = Agent::start(sandbox, &allowed);
        let _servers = [
            db.serve(&["udp", AT_DB, "--echo"]),
            db.serve(&["tcp", AT_DB, "--echo"]),
        ];
        let _echo = db.serve(&["tcp", "127.0.0.1:5433", "--echo"]);
        let mut stream = web.hold("127.0.0.1:5433");
        let mut caller = web.start(&["insist", AT_DB]);
        let _passed = caller.line().expect_ok("a first datagram");
        agent.set_policy(&denied("web"));
        let _refused = caller.line().expect_ok("a refusal");
        for successor in ["second", "third", "fourth"] {
            agent.kill();
            agent.write_policy(&denied(successor));
            agent.restart();
            let names: Vec<_> = agent.client().workloads().unwrap();
            assert!(names.iter().any(|it| it.name == successor), "{names:?}");
        }
        caller.go_on();
        let outcome = caller.last();
        assert!(outcome.sent > 0, "{outcome:?}");
        assert_eq!(outcome.received, 0, "passed of {} tries", outcome.sent);
        assert!(stream.is_alive(), "cut, though every policy allows it");
    });
}

#[test]
fn an_agent_whose_guarded_cgroup_was_made_anew_ends_and_the_next_one_guards_it() {
    scene("remade", |sandbox| {
        let mut agent = Agent::start(sandbox, &three_tiers());
        let guarded = sandbox.guarded();
        until("the guarded cgroup is removed", || {
            for entry in fs::read_dir(guarded).unwrap().flatten() {
                let _a_file = fs::remove_dir(entry.path());
            }
            fs::remove_dir(guarded).is_ok()
        });
        fs::create_dir(guarded).unwrap();
        let ended = agent.daemon().wait();
        assert_eq!(ended.code(), Some(1), "{ended:?}");
        assert!(agent.daemon().log().contains("was removed and made again"));
        agent.restart();
        let (web, db) = (sandbox.actor("web"), sandbox.actor("db"));
        let _server = db.serve(&["tcp", AT_DB]);
        let _ = assert_refused(&web, AT_DB, &[]);
    });
}
