//! Processes of which it can't be said who they are, because two workloads match them equally: nobody, with
//! every packet and for as long as their sockets are open.

use ringfence_tests::{
    Actor, Agent, Running, Sandbox,
    flows::line,
    namespace::Namespace,
    policy::{policy, workload},
    scene,
};

/// Groups that nobody needs to have made: the kernel knows numbers only.
const STAFF: u32 = 70_001;
const OPS: u32 = 70_002;
/// Of a host that no agent guards.
const FAR: &str = "10.99.0.2:5300";
/// `IP_LOCAL_PORT_RANGE` (`ip(7)`): the kernel chooses 40000.
const CHOOSE: &str = "option 10 0 51 409c409c";

/// Of the program's cgroup only members of groups are workloads, everybody else is the host.
fn staff(app: &Actor) -> String {
    // Named somewhere, so that the program is judged before it calls.
    let named = format!(
        "cgroup = \"/nowhere\", exe = \"{}\"",
        app.program().display()
    );
    workload("nowhere", &named)
        + &workload("staff", &format!("cgroup = \"/app\", gid = {STAFF}"))
        + &policy("staff", "", &[("egress", "ports = [\"udp\"]")])
}

/// The same with a workload that fits a member of both groups equally.
fn staff_and_ops(app: &Actor) -> String {
    staff(app)
        + &workload("ops", &format!("cgroup = \"/app\", gid = {OPS}"))
        + &policy("ops", "", &[("egress", "ports = [\"udp\"]")])
}

/// A wire to a host with an echo server.
fn far(sandbox: &Sandbox) -> (Namespace, Running) {
    let far = Namespace::new();
    sandbox.namespace().connect(&far);
    let server = sandbox.stranger("far").in_namespace(&far);
    let server = server.serve(&["udp", FAR, "--echo"]);
    (far, server)
}

fn denials(agent: &Agent) -> Vec<String> {
    let mut lines: Vec<_> = agent.log().iter().map(line).collect();
    lines.retain(|line| line.starts_with("deny "));
    lines
}

#[track_caller]
fn steps(puppet: &mut Running, steps: &[&str]) {
    for step in steps {
        let _ = puppet.ask(step).expect_ok(step);
    }
}

#[test]
fn a_socket_whose_owner_becomes_nobody_stays_nobodys() {
    scene("tied-later", |sandbox| {
        let app = sandbox.actor("app");
        let (_far, _server) = far(sandbox);
        let both = app.in_groups(STAFF, &[OPS]);
        let mut agent = Agent::start(sandbox, &staff(&app));
        let [mut owner, mut other] = [both.puppet(), app.in_groups(STAFF, &[]).puppet()];
        let mailbox = sandbox.files().join("box");
        steps(&mut other, &[&format!("mailbox {}", mailbox.display())]);
        let connect = format!("connect 10 {FAR}");
        steps(
            &mut owner,
            &["open 2 2 0 10", &connect, "exchange 10", "exchange 10"],
        );
        agent.set_policy(&staff_and_ops(&app));
        for round in 0..4 {
            let outcome = owner.ask("exchange 10");
            assert!(outcome.failed("send", "EPERM"), "{round}: {outcome:?}");
        }
        let by = both.by(owner.pid());
        let expected =
            format!("deny egress udp unknown -> world {FAR} deny no-identity-deny revoked {by}");
        assert_eq!(denials(&agent).first(), Some(&expected));
        // Another generation finds it anew, and a new agent does: it is nobody's still, whoever holds it.
        agent.set_policy(&(staff_and_ops(&app) + &workload("more", "cgroup = \"/more\"")));
        let give = format!("give {} 10", mailbox.display());
        steps(&mut owner, &[&give, "close 10"]);
        steps(&mut other, &["take 10"]);
        for round in 0..2 {
            let outcome = other.ask("exchange 10");
            assert!(outcome.failed("send", "EPERM"), "{round}: {outcome:?}");
        }
        agent.assert_counters();
        agent.kill();
        agent.restart();
        let outcome = other.ask("exchange 10");
        assert!(outcome.failed("send", "EPERM"), "restarted: {outcome:?}");
        // Who connects again is asked who he is.
        steps(&mut other, &[&connect, "exchange 10"]);
    });
}

#[test]
fn nobody_is_not_called_on_a_port_that_it_did_not_ask_for() {
    scene("tied-listener", |sandbox| {
        let app = sandbox.actor("app");
        let (far, _server) = far(sandbox);
        let caller = sandbox.stranger("caller").in_namespace(&far);
        let both = app.in_groups(STAFF, &[OPS]);
        let listen = |actor: &Actor| {
            let mut listener = actor.puppet();
            steps(&mut listener, &["open 2 1 0 10", CHOOSE, "listen 10"]);
            steps(
                &mut listener,
                &["open 2 2 0 11", &CHOOSE.replace("10", "11")],
            );
            steps(&mut listener, &["bind 11 10.99.0.1:0"]);
            listener
        };
        let tcp = |caller: &mut Running| {
            steps(caller, &["open 2 1 0 10", "begin 10 10.99.0.1:40000"]);
            let outcome = caller.ask("finish 10");
            steps(caller, &["close 10"]);
            outcome
        };
        let udp = |caller: &mut Running, listener: &mut Running| {
            steps(caller, &["open 2 2 0 11", "message 11 10.99.0.1:40000 0"]);
            let outcome = listener.ask("receive 11");
            steps(caller, &["close 11"]);
            outcome
        };
        let mut caller = caller.puppet();
        let mut before = listen(&both);
        let _ = tcp(&mut caller).expect_ok("without the agent");
        let _ = udp(&mut caller, &mut before).expect_ok("without the agent");
        drop(before);

        let agent = Agent::start(sandbox, &staff_and_ops(&app));
        let mut listener = listen(&both);
        for round in 0..2 {
            let outcome = tcp(&mut caller);
            assert!(outcome.failed("finish", "timeout"), "{round}: {outcome:?}");
            let outcome = udp(&mut caller, &mut listener);
            assert!(outcome.failed("receive", "timeout"), "{round}: {outcome:?}");
        }
        let by = both.by(listener.pid());
        let expected = ["tcp", "udp"].map(|protocol| {
            format!(
                "deny ingress {protocol} world -> unknown 10.99.0.1:40000 deny no-identity-deny {by}"
            )
        });
        let found = denials(&agent);
        for line in &expected {
            assert!(found.contains(line), "{line}\n{found:#?}");
        }
        agent.assert_counters();
    });
}
