//! Ports on which somebody listens already: who may share them.

use std::{fs, io::Write as _};

use nix::sys::signal::Signal;
use ringfence_tests::{
    Actor, Agent, Running,
    namespace::Namespace,
    policy::{policy, workload, workloads},
    scene,
};

/// `SO_REUSEPORT` (`include/uapi/asm-generic/socket.h`).
const SHARE: &str = "option 10 1 15 01000000";
/// `SO_BINDTODEVICE`, `test0`.
const TO_DEVICE: &str = "option 10 1 25 746573743000";
const BIND: &str = "bind 10 127.0.0.1:7000";

fn play(puppet: &mut Running, steps: &[&str]) {
    for step in steps {
        let _ = puppet.ask(step).expect_ok(step);
    }
}

/// `api` and the parts of a scene in which some programs of its cgroup are another workload.
fn api_with_others(odd: &[&Actor]) -> String {
    let mut text = workload("api", "cgroup = \"/api\"");
    for (index, actor) in odd.iter().enumerate() {
        let exe = actor.program().display();
        text += &workload(
            &format!("odd{index}"),
            &format!("cgroup = \"/api\", exe = \"{exe}\""),
        );
        text += &policy(&format!("odd{index}"), "default-deny = [\"ingress\"]", &[]);
    }
    // In this cgroup, too, executables are told apart.
    text += &workload("other", "cgroup = \"/other\"");
    text += &workload("odd-other", "cgroup = \"/other\", exe = \"/bin/true\"");
    text + &policy("api", "", &[("ingress", "ports = [\"7000/tcp\"]")])
}

#[test]
fn a_worker_that_is_not_judged_yet_shares_the_port_of_its_own_cgroup() {
    scene("fresh-worker", |sandbox| {
        let api = sandbox.actor("api");
        let odd = sandbox.actor("odd").in_cgroup(sandbox, "api");
        let fresh = sandbox.actor("fresh").in_cgroup(sandbox, "api");
        let [known, thief] =
            ["known", "thief"].map(|name| sandbox.actor(name).in_cgroup(sandbox, "other"));
        let caller = sandbox.stranger("caller");
        let mut agent = Agent::start(sandbox, &api_with_others(&[&odd]));
        // Judged from now on.
        for actor in [&api, &known] {
            let _ = actor.tcp("127.0.0.1:81", &["--timeout-ms", "3000"]);
        }
        let mut first = api.puppet();
        play(&mut first, &["open 2 1 0 10", SHARE, BIND, "listen 10"]);
        agent.daemon().signal(Signal::SIGSTOP);
        for stranger in [&known, &thief] {
            let mut stranger = stranger.puppet();
            play(&mut stranger, &["open 2 1 0 10", SHARE]);
            let _ = stranger
                .ask(BIND)
                .expect_refused("bind", "the port of another workload");
        }
        let mut second = fresh.puppet();
        play(&mut second, &["open 2 1 0 10", SHARE, BIND, "listen 10"]);
        // Nor when it is the worker's that is found.
        play(&mut first, &["close 10"]);
        let mut stranger = known.puppet();
        play(&mut stranger, &["open 2 1 0 10", SHARE]);
        let _ = stranger
            .ask(BIND)
            .expect_refused("bind", "the port of who is not judged yet");
        agent.daemon().signal(Signal::SIGCONT);
        let mut calling = caller.puppet();
        play(
            &mut calling,
            &["open 2 1 0 10", "connect 10 127.0.0.1:7000"],
        );
        play(&mut second, &["accept 10 11"]);
        agent.assert_counters();
    });
}

#[test]
fn who_turns_out_to_be_another_workload_gets_nothing_on_the_port_that_it_shares() {
    scene("fresh-impostor", |sandbox| {
        let api = sandbox.actor("api");
        let odd = sandbox.actor("odd").in_cgroup(sandbox, "api");
        let caller = sandbox.stranger("caller");
        let mut agent = Agent::start(sandbox, &api_with_others(&[&odd]));
        let _ = api.tcp("127.0.0.1:81", &["--timeout-ms", "3000"]);
        let mut first = api.puppet();
        play(&mut first, &["open 2 1 0 10", SHARE, BIND, "listen 10"]);
        agent.daemon().signal(Signal::SIGSTOP);
        // Changed behind its end it has to be judged anew.
        let program = fs::OpenOptions::new().append(true).open(odd.program());
        program.unwrap().write_all(&[0]).unwrap();
        let mut second = odd.puppet();
        play(&mut second, &["open 2 1 0 10", SHARE, BIND, "listen 10"]);
        agent.daemon().signal(Signal::SIGCONT);
        // A call that a listener gets is established, though nobody takes it.
        let call = || caller.tcp("127.0.0.1:7000", &["--timeout-ms", "300"]);
        let calls = [(); 24].map(|()| call().step);
        let to_api = calls.iter().filter(|step| **step == "receive").count();
        let cut = calls.iter().filter(|step| **step == "connect").count();
        assert!(to_api > 0 && cut > 0 && to_api + cut == 24, "{calls:?}");
        let nothing = second.ask("accept 10 11");
        assert!(nothing.failed("accept", "timeout"), "{nothing:?}");
        play(&mut second, &["close 10"]);
        let mut third = odd.puppet();
        play(&mut third, &["open 2 1 0 10", SHARE]);
        let _ = third
            .ask(BIND)
            .expect_refused("bind", "once it is known who it is");
        agent.assert_counters();
    });
}

/// The device may be in a routing domain of its own (VRF), which no program can see; there the port is free.
#[test]
fn a_port_asked_for_on_a_device_is_left_to_the_kernel_unless_it_is_shared() {
    scene("taken-device", |sandbox| {
        let far = Namespace::new();
        sandbox.namespace().connect(&far);
        let [vault, rogue] = ["vault", "rogue"].map(|name| sandbox.actor(name));
        let text =
            workloads(&["vault", "rogue"]) + &policy("vault", "default-deny = [\"ingress\"]", &[]);
        let agent = Agent::start(sandbox, &text);
        let [mut alone, mut sharing] = [vault.puppet(), vault.puppet()];
        play(
            &mut alone,
            &["open 2 1 0 10", "bind 10 10.99.0.1:7000", "listen 10"],
        );
        play(
            &mut sharing,
            &[
                "open 2 1 0 10",
                SHARE,
                "bind 10 10.99.0.1:7001",
                "listen 10",
            ],
        );
        let bind = |device: bool, port: u16| {
            let mut puppet = rogue.puppet();
            play(&mut puppet, &["open 2 1 0 10", SHARE]);
            if device {
                play(&mut puppet, &[TO_DEVICE]);
            }
            puppet.ask(&format!("bind 10 10.99.0.1:{port}"))
        };
        let by_kernel = bind(true, 7000);
        assert!(by_kernel.failed("bind", "EADDRINUSE"), "{by_kernel:?}");
        for (device, port) in [(false, 7000), (false, 7001), (true, 7001)] {
            let _ = bind(device, port).expect_refused("bind", "the port of vault");
        }
        agent.assert_counters();
    });
}
