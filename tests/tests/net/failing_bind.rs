//! A call that comes to nothing takes nothing over.

use ringfence_tests::{
    Agent,
    flows::line,
    policy::{policy, workload, workloads},
    scene,
};

use crate::ownership_stage::{By, GOOD, Stage};

/// `bind` on a socket that is bound or connected fails in the kernel (EINVAL), after the hook has run.
#[test]
fn a_bind_that_fails_changes_no_owner() {
    scene("failing-bind", |sandbox| {
        let stage = Stage::new(sandbox, By::Cgroup);
        let script = "a socket tcp 10; a bind 10 {port}; a listen 10; a fork; a cgroup {b}";
        let agent = stage.agent();
        let mut played = stage.play(script, GOOD);
        // The policy restricts no listening: the hook lets it pass, the kernel refuses it.
        let outcome = played.step("a bind 10 127.0.0.1:7001");
        assert!(outcome.failed("bind", "EINVAL"), "{outcome:?}");
        for step in ["c socket tcp 20", "c connect 20 {port}"] {
            let _ = played.step(step).expect_ok("the listener is still good's");
        }
        let _ = played.step("a accept 10 11").expect_ok("the call");
        agent.assert_counters();
    });
}

/// The socket has no port, so that the kernel would let the call bind it.
#[test]
fn a_bind_that_is_refused_changes_no_owner() {
    scene("refused-bind", |sandbox| {
        // The one port that the kernel gives to who asks for none.
        let range = "net/ipv4/ip_local_port_range";
        let [good, evil, caller] = ["good", "evil", "caller"].map(|name| sandbox.actor(name));
        let text = workloads(&["good", "evil", "caller"])
            + &policy(
                "evil",
                "default-deny = [\"ingress\"]",
                &[("listen", "ports = [\"7100/tcp\"]")],
            );
        let mailbox = sandbox.files().join("mailbox");
        let give = format!("give {} 10", mailbox.display());
        let agent = Agent::start(sandbox, &text);
        let (mut owner, mut thief) = (good.puppet(), evil.puppet());
        let _ = thief.ask(&format!("mailbox {}", mailbox.display()));
        for step in ["socket tcp 10", &give] {
            let _ = owner.ask(step).expect_ok(step);
        }
        let _ = thief.ask("take 10").expect_ok("the socket of good");
        let _ = thief
            .ask("bind 10 127.0.0.1:7001")
            .expect_refused("bind", "a port that evil may not have");
        sandbox.namespace().sysctl(range, "7100 7100");
        let _ = owner.ask("listen 10").expect_ok("good listens");
        sandbox.namespace().sysctl(range, "32768 60999");
        let mut calling = caller.puppet();
        for step in ["socket tcp 20", "connect 20 127.0.0.1:7100"] {
            let _ = calling.ask(step).expect_ok("a call to good");
        }
        let refused: Vec<_> = agent
            .log()
            .iter()
            .map(ringfence_tests::flows::line)
            .filter(|line| line.starts_with("deny"))
            .collect();
        let by = evil.by(thief.pid());
        assert_eq!(
            refused,
            [format!(
                "deny listen tcp - -> evil 127.0.0.1:7001 deny default-deny {by}"
            )]
        );
        agent.assert_counters();
    });
}

/// The hook sees a socket with a port, which another thread takes away (`connect` with `AF_UNSPEC`) before the kernel
/// looks: the call succeeds.
#[test]
fn who_binds_a_socket_that_loses_its_port_meanwhile_owns_it() {
    scene("raced-bind", |sandbox| {
        let app = sandbox.actor("app");
        let users = [("good", 10_001), ("bad", 10_002)];
        let text: String = users
            .iter()
            .map(|(name, uid)| workload(name, &format!("cgroup = \"/app\", uid = {uid}")))
            .collect();
        let text = text
            + &policy("good", "", &[("ingress", "ports = [\"7000/udp\"]")])
            + &policy("bad", "default-deny = [\"ingress\"]", &[]);
        let mut puppet = app.puppet();
        let mut race = |users: &str, times: u32| {
            let step = format!("race {users} 127.0.0.1:5300 127.0.0.1:7000 {times}");
            puppet.ask(&step).expect_ok(&step)
        };
        let agent = Agent::start(sandbox, &text);
        let own = race("10001 10001", 20);
        // The receiver does not wait: what the kernel delivers later is not received, nor refused.
        assert!(own.received > 0, "what good may receive: {own:?}");
        let lines: Vec<_> = agent.log().iter().map(line).collect();
        assert!(
            lines.iter().all(|it| !it.starts_with("deny ")),
            "{lines:#?}"
        );
        let others = race("10001 10002", 3000);
        assert!(others.sent > 0, "{others:?}");
        assert_eq!(others.received, 0, "received as good: {others:?}");
    });
}
