//! Ports that a process asked for before it was known who it is.

use std::{fs, io::Write as _};

use nix::sys::signal::Signal;
use ringfence_tests::{
    Actor, Agent, Running, Sandbox,
    flows::line,
    policy::{policy, workload, workloads},
    poll::until,
    scene,
};

/// `SO_REUSEPORT`, on; `SO_REUSEADDR`, off (`include/uapi/asm-generic/socket.h`).
const SHARE: &str = "option 10 1 15 01000000";
const KEEP: &str = "option 10 1 2 00000000";
const OPEN: &str = "open 2 1 0 10";
const BIND: &str = "bind 10 127.0.0.1:7000";

fn play(puppet: &mut Running, steps: &[&str]) {
    for step in steps {
        let _ = puppet.ask(step).expect_ok(step);
    }
}

/// `api` may listen on 7000, and `thief`, which its executable makes who it is, on 7001.
fn stage(sandbox: &Sandbox) -> (Actor, Actor, Agent) {
    let (api, thief) = (sandbox.actor("api"), sandbox.actor("thief"));
    let exe = format!(
        "cgroup = \"/thief\", exe = \"{}\"",
        thief.program().display()
    );
    let text = workloads(&["api"])
        + &workload("thief", &exe)
        + &policy("api", "", &[("listen", "ports = [\"7000/tcp\"]")])
        + &policy("thief", "", &[("listen", "ports = [\"7001/tcp\"]")]);
    let agent = Agent::start(sandbox, &text);
    (api, thief, agent)
}

/// What `thief` has done when the agent is asked who it is.
fn not_judged_yet(agent: &mut Agent, thief: &Actor, steps: &[&str]) -> Running {
    agent.daemon().signal(Signal::SIGSTOP);
    // Changed behind its end it has to be judged anew.
    let program = fs::OpenOptions::new().append(true).open(thief.program());
    program.unwrap().write_all(&[0]).unwrap();
    let mut puppet = thief.puppet();
    play(&mut puppet, steps);
    puppet
}

/// Whether the one who may have the port gets it: as most servers ask for it, with `SO_REUSEADDR`.
fn gets_the_port(api: &Actor) -> bool {
    let mut puppet = api.puppet();
    play(&mut puppet, &[OPEN]);
    let bound = puppet.ask(BIND);
    assert!(
        bound.ok() || bound.failed("bind", "EADDRINUSE"),
        "{bound:?}"
    );
    bound.ok() && puppet.ask("listen 10").ok()
}

#[test]
fn who_turns_out_to_have_no_right_to_a_port_loses_it() {
    scene("unjudged-listener", |sandbox| {
        let (api, thief, mut agent) = stage(sandbox);
        let steps = [OPEN, BIND, KEEP, "listen 10"];
        let mut squatter = not_judged_yet(&mut agent, &thief, &steps);
        assert!(!gets_the_port(&api), "the port is free");
        agent.daemon().signal(Signal::SIGCONT);
        until("the port is given up", || gets_the_port(&api));
        let mut server = api.puppet();
        play(&mut server, &[OPEN, BIND, "listen 10"]);
        let again = squatter.ask("listen 10");
        assert!(again.failed("listen", "EADDRINUSE"), "{again:?}");
        let expected = format!(
            "deny listen tcp - -> thief 127.0.0.1:7000 deny default-deny {}",
            thief.by(squatter.pid())
        );
        let lines: Vec<_> = agent.log().iter().map(line).collect();
        assert!(lines.contains(&expected), "{expected}\n{lines:#?}");
        agent.assert_counters();
    });
}

#[test]
fn a_listener_that_is_passed_on_and_shares_its_port_is_found() {
    scene("unjudged-shared", |sandbox| {
        let (api, thief, mut agent) = stage(sandbox);
        let steps = [OPEN, SHARE, BIND, KEEP, "listen 10"];
        let mut squatter = not_judged_yet(&mut agent, &thief, &steps);
        // While it is not known who that is, it keeps nothing from who may listen there.
        let mut server = api.puppet();
        play(&mut server, &[OPEN, SHARE, BIND, "listen 10"]);
        // The descriptor goes on in a child, and the process that bound it only waits.
        play(&mut squatter, &["fork"]);
        agent.daemon().signal(Signal::SIGCONT);
        until("the listener is ended", || {
            squatter.ask("accept 10 11").failed("accept", "EINVAL")
        });
        play(&mut server, &["close 10"]);
        until("the port is given up", || gets_the_port(&api));
        agent.assert_counters();
    });
}

#[test]
fn who_turns_out_to_have_a_right_to_a_port_keeps_it() {
    scene("unjudged-rightful", |sandbox| {
        let (_, thief, mut agent) = stage(sandbox);
        let caller = sandbox.stranger("caller");
        let steps = [OPEN, "bind 10 127.0.0.1:7001", "listen 10"];
        let mut server = not_judged_yet(&mut agent, &thief, &steps);
        let steps = [OPEN, BIND, "listen 10"];
        let mut other = thief.puppet();
        play(&mut other, &steps);
        agent.daemon().signal(Signal::SIGCONT);
        // The look that ends one listener would end the other with it.
        until("the wrong one is ended", || {
            other.ask("accept 10 11").failed("accept", "EINVAL")
        });
        let mut calling = caller.puppet();
        play(&mut calling, &[OPEN, "connect 10 127.0.0.1:7001"]);
        play(&mut server, &["accept 10 11"]);
        agent.assert_counters();
    });
}

#[test]
fn a_port_that_is_only_bound_is_given_up_when_it_listens() {
    scene("unjudged-bound", |sandbox| {
        let (api, thief, mut agent) = stage(sandbox);
        let mut squatter = not_judged_yet(&mut agent, &thief, &[OPEN, BIND, KEEP]);
        agent.daemon().signal(Signal::SIGCONT);
        // Whom the agent has told who the process is: it may not have the port any more.
        until("it is judged", || {
            let mut other = thief.puppet();
            play(&mut other, &[OPEN]);
            other.ask("bind 10 127.0.0.1:7002").failed("bind", "EPERM")
        });
        play(&mut squatter, &["listen 10"]);
        until("the port is given up", || gets_the_port(&api));
        agent.assert_counters();
    });
}
