//! What who is refused hears: `[refusal]` in the configuration of the agent.

use ringfence_tests::{
    Actor, Agent, Options, Outcome, Sandbox,
    flows::line,
    namespace::Namespace,
    policy::{policy, workload, workloads},
    poll::until,
    scene,
};

use crate::common::{assert_refused, three_tiers};

/// Everybody may call `api` on 80, nobody on 81.
pub fn api_80() -> String {
    let rule = "from = [{ entity = \"world\" }]\nports = [\"80/tcp\", \"80/udp\"]";
    workloads(&["api"]) + &policy("api", "", &[("ingress", rule)])
}

/// The section with these keys.
pub fn refusal(keys: &str) -> Options {
    Options {
        sections: format!("[refusal]\n{keys}"),
        ..Options::default()
    }
}

/// How many refused packets became of what.
pub fn answers(agent: &Agent, result: &str) -> u64 {
    let labels = [("result", result)];
    agent
        .metrics()
        .sum("ringfence_refusal_answers_total", &labels)
}

/// Waits until so many were sent, suppressed and failed: a client may hear an answer before it is counted.
#[track_caller]
pub fn assert_answers(agent: &Agent, expected: [u64; 3]) {
    const RESULTS: [&str; 3] = ["sent", "suppressed", "failed"];
    until("the answers are counted", || {
        RESULTS.map(|result| answers(agent, result)) == expected
    });
    until("the status says so too", || {
        let counts = agent.status().counts;
        RESULTS.map(|result| counts.get(&format!("answer-{result}")).copied()) == expected.map(Some)
    });
}

/// Calls `api` from the far end of a wire: the ports that it may call answer, the others as expected.
fn play(name: &str, remote: &str, expected: [&str; 4]) {
    scene(name, |sandbox| {
        let far = Namespace::new();
        sandbox.namespace().connect(&far);
        let [api, caller] = [
            sandbox.actor("api"),
            sandbox.stranger("caller").in_namespace(&far),
        ];
        let _servers: Vec<_> = ["tcp", "udp"]
            .iter()
            .flat_map(|protocol| ["80", "81"].map(|port| (protocol, port)))
            .map(|(protocol, port)| api.serve(&[protocol, &format!("[::]:{port}"), "--echo"]))
            .collect();
        let call = |protocol: &str, address: &str, port: u16| {
            let target = format!("{address}:{port}");
            caller.run(&["call", protocol, &target, "--timeout-ms", "2500"])
        };
        let agent = Agent::start_with(sandbox, &refusal(remote), &api_80());
        let calls = [
            ("tcp", "10.99.0.1"),
            ("tcp", "[fd99::1]"),
            ("udp", "10.99.0.1"),
            ("udp", "[fd99::1]"),
        ];
        for ((protocol, address), error) in calls.into_iter().zip(expected) {
            let _ = call(protocol, address, 80).expect_ok("an allowed call");
            let refused = call(protocol, address, 81);
            let step = if protocol == "tcp" {
                "connect"
            } else {
                "receive"
            };
            assert!(
                refused.failed(step, error),
                "{protocol} {address}: {refused:?}"
            );
        }
        let sent = if remote.contains("drop") { 0 } else { 4 };
        assert_answers(&agent, [sent, 0, 0]);
        let log: Vec<_> = agent.log().iter().map(line).collect();
        for (protocol, address) in calls {
            let flow = format!("ingress {protocol} world -> api {address}");
            let found = |start: String| log.iter().filter(|it| it.starts_with(&start)).count();
            assert_eq!(
                found(format!("deny {flow}:81 deny default-deny ")),
                1,
                "{log:#?}"
            );
            assert_eq!(found(format!("open {flow}:81 ")), 0, "{log:#?}");
            assert_eq!(found(format!("open {flow}:80 ")), 1, "{log:#?}");
        }
        agent.assert_counters();
    });
}

#[test]
fn a_refused_client_hears_nothing_by_default() {
    play("refusal-drop", "remote = \"drop\"", ["timeout"; 4]);
}

#[test]
fn a_refused_client_is_told_what_a_closed_port_says() {
    play("refusal-reset", "remote = \"reset\"", ["ECONNREFUSED"; 4]);
}

#[test]
fn a_refused_client_is_told_that_it_is_prohibited() {
    let expected = ["EHOSTUNREACH", "EACCES", "EHOSTUNREACH", "EACCES"];
    play("refusal-prohibited", "remote = \"prohibited\"", expected);
}

/// `caller` at the far end of a wire, and an agent that resets.
fn far_caller(sandbox: &Sandbox) -> (Namespace, Actor) {
    let far = Namespace::new();
    sandbox.namespace().connect(&far);
    let caller = sandbox.stranger("caller").in_namespace(&far);
    (far, caller)
}

fn knock(caller: &Actor, address: &str) -> Outcome {
    caller.tcp(address, &["--timeout-ms", "2500"])
}

#[test]
fn without_an_agent_nobody_answers() {
    scene("refusal-dead", |sandbox| {
        let (_far, caller) = far_caller(sandbox);
        let api = sandbox.actor("api");
        let _servers = ["80", "81"].map(|port| api.serve(&["tcp", &format!("[::]:{port}")]));
        let mut agent = Agent::start_with(sandbox, &refusal("remote = \"reset\""), &api_80());
        let refused = knock(&caller, "10.99.0.1:81");
        assert!(refused.failed("connect", "ECONNREFUSED"), "{refused:?}");
        agent.kill();
        let silent = knock(&caller, "10.99.0.1:81");
        assert!(silent.failed("connect", "timeout"), "{silent:?}");
        let _ = knock(&caller, "10.99.0.1:80").expect_ok("an allowed call");
        agent.restart();
        // What came meanwhile is not answered late.
        assert_answers(&agent, [0; 3]);
        let refused = knock(&caller, "10.99.0.1:81");
        assert!(refused.failed("connect", "ECONNREFUSED"), "{refused:?}");
    });
}

#[test]
fn an_answer_leaves_by_the_namespace_and_the_device_that_the_packet_came_by() {
    scene("refusal-elsewhere", |sandbox| {
        let (far, caller) = far_caller(sandbox);
        // The other way round: who is called lives in the namespace that the sandbox does not know.
        let api = sandbox.actor("api").in_namespace(&far);
        far.run("ip address add fe80::99/64 dev test0 nodad");
        let caller = caller.in_namespace(sandbox.namespace());
        let _server = api.serve(&["tcp", "[::]:81"]);
        let agent = Agent::start_with(sandbox, &refusal("remote = \"reset\""), &api_80());
        for (address, options) in [
            ("10.99.0.2:81", &[][..]),
            ("[fd99::2]:81", &[]),
            ("[fe80::99]:81", &["--device", "test0"]),
        ] {
            let refused = caller.tcp(address, options);
            assert!(
                refused.failed("connect", "ECONNREFUSED"),
                "{address}: {refused:?}"
            );
        }
        assert_answers(&agent, [3, 0, 0]);
        agent.assert_counters();
    });
}

#[test]
fn answers_of_a_guarded_agent_are_neither_stopped_nor_flows() {
    scene("refusal-guarded", |sandbox| {
        let (_far, caller) = far_caller(sandbox);
        let api = sandbox.actor("api");
        let server = api.serve(&["tcp", "[::]:81"]);
        let everything = [("deny-egress", "to = [{ cidr = \"0.0.0.0/0\" }]")];
        let text = api_80()
            + &workload("daemons", "cgroup = \"/daemons\"")
            + &policy("daemons", "", &everything);
        let launcher = [
            "--netns".into(),
            sandbox.namespace().path().into(),
            "--cgroup".into(),
            sandbox.cgroup("daemons").into(),
            "run".into(),
        ];
        let options = Options {
            launcher: launcher.to_vec(),
            ..refusal("remote = \"reset\"")
        };
        let agent = Agent::start_with(sandbox, &options, &text);
        let refused = knock(&caller, "10.99.0.1:81");
        assert!(refused.failed("connect", "ECONNREFUSED"), "{refused:?}");
        let by = api.by(server.pid());
        agent.assert_log_of(
            &[format!(
                "deny ingress tcp world -> api 10.99.0.1:81 deny default-deny {by}"
            )],
            |flow| flow.protocol != 6 || !line(flow).contains("127.0.0.1"),
        );
    });
}

#[test]
fn a_local_refusal_looks_like_a_closed_port_where_that_is_configured() {
    scene("refusal-local", |sandbox| {
        let [web, api, db] = ["web", "api", "db"].map(|name| sandbox.actor(name));
        let udp = three_tiers().replace("5432/tcp\"]", "5432/tcp\", \"5432/udp\"]");
        // Whom nothing restricts is refused by the policy of db alone.
        let text = udp.replace(
            "name = \"web\"\napplies-to",
            "name = \"web\"\nmode = \"draft\"\napplies-to",
        );
        let _servers = ["tcp", "udp"].map(|it| db.serve(&[it, "127.0.0.1:5432"]));
        let mut agent = Agent::start_with(sandbox, &refusal("local = \"econnrefused\""), &text);
        let mut expected = Vec::new();
        for protocol in ["tcp", "udp"] {
            let refused = web.run(&["call", protocol, "127.0.0.1:5432"]);
            assert!(refused.failed("connect", "ECONNREFUSED"), "{refused:?}");
            expected.push(format!(
                "deny egress {protocol} web -> db 127.0.0.1:5432 deny default-deny"
            ));
        }
        // What the caller's own policy refuses is EPERM all the same.
        let _ = assert_refused(&api, "127.0.0.1:6666", &[]);
        let _ = api.tcp("127.0.0.1:5432", &[]).expect_ok("an allowed call");
        let log: Vec<_> = agent.log().iter().map(line).collect();
        for start in expected {
            let found = |it: &&String| it.starts_with(&start) && it.contains(" peer ");
            assert_eq!(log.iter().filter(found).count(), 1, "{start}\n{log:#?}");
        }
        agent.assert_counters();
        // It is a property of the programs: it holds without an agent, and goes with the configuration.
        agent.kill();
        let refused = web.tcp("127.0.0.1:5432", &[]);
        assert!(refused.failed("connect", "ECONNREFUSED"), "{refused:?}");
        agent.configure(sandbox, &refusal("local = \"eperm\""));
        agent.restart();
        let _ = assert_refused(&web, "127.0.0.1:5432", &[]);
    });
}

#[test]
fn what_can_not_be_answered_on_this_host_is_warned_of() {
    scene("refusal-raw", |sandbox| {
        let (_far, caller) = far_caller(sandbox);
        let api = sandbox.actor("api");
        let _server = api.serve(&["tcp", "[::]:81"]);
        let launcher = ["run", "setpriv", "--bounding-set", "-net_raw", "--"];
        let options = Options {
            launcher: launcher.map(Into::into).to_vec(),
            ..refusal("remote = \"reset\"")
        };
        let agent = Agent::start_with(sandbox, &options, &api_80());
        let refused = knock(&caller, "10.99.0.1:81");
        assert!(refused.failed("connect", "timeout"), "{refused:?}");
        let warnings = agent.status().warnings;
        let named = |it: &String| it.contains("[refusal] remote") && it.contains("CAP_NET_RAW");
        assert!(warnings.iter().any(named), "{warnings:?}");
        agent.assert_counters();
    });
}
