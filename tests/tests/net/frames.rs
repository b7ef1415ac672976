//! Frames of packet sockets, which no cgroup hook sees.

use std::{fs, path::PathBuf, process::Command};

use ringfence_tests::{
    Actor, Agent, Outcome, Running, Sandbox, foreign,
    namespace::Namespace,
    policy::{policy, workloads},
    poll::until,
    program, scene,
};

/// tight is restricted, free is not.
fn text() -> String {
    workloads(&["tight", "free"]) + &policy("tight", "default-deny = [\"egress\"]", &[])
}

pub fn frame(actor: &Actor, device: &str, size: &str, more: &[&str]) -> Outcome {
    actor.run(&[&["frame", device, size], more].concat())
}

#[track_caller]
fn assert_dropped(actor: &Actor, device: &str) {
    let outcome = frame(actor, device, "60", &[]);
    assert!(outcome.failed("send", "ENOBUFS"), "{outcome:?}");
}

/// Hears what is sent to the other end of the first device.
pub fn listen(sandbox: &Sandbox, far: &Namespace) -> Running {
    let sniffer = sandbox.stranger("sniffer").in_namespace(far);
    let mut sniffer = sniffer.start(&["sniff", "test0"]);
    let _ready = sniffer.line().expect_ok("a packet socket");
    sniffer
}

#[track_caller]
pub fn assert_hears(sniffer: &mut Running, sizes: &[u64]) {
    for size in sizes {
        assert_eq!(sniffer.line().received, *size);
    }
    assert_eq!(sniffer.unread(), []);
}

#[test]
fn a_restricted_workload_sends_no_frames_by_any_way() {
    scene("frames", |sandbox| {
        let far = Namespace::new();
        sandbox.namespace().connect(&far);
        let mut sniffer = listen(sandbox, &far);
        let [tight, free] = ["tight", "free"].map(|name| sandbox.actor(name));
        let stranger = sandbox.stranger("stranger");
        for (size, more) in [("60", &[][..]), ("61", &["--bypass"])] {
            let _ = frame(&tight, "test0", size, more).expect_ok("without the agent");
        }
        assert_hears(&mut sniffer, &[60, 61]);

        // A namespace is covered while guarded processes are in it.
        let _inside = sandbox.actor("holder").puppet();
        let mut agent = Agent::start(sandbox, &text());
        let dropped = frame(&tight, "test0", "60", &[]);
        assert!(dropped.failed("send", "ENOBUFS"), "{dropped:?}");
        let refused =
            frame(&tight, "test0", "61", &["--bypass"]).expect_refused("option", "a bypass");
        // Over loopback a frame would reach whoever listens on this host.
        let own = frame(&tight, "lo", "62", &[]);
        assert!(own.failed("send", "ENOBUFS"), "{own:?}");
        for (actor, plain, bypass) in [(&free, "70", "71"), (&stranger, "80", "81")] {
            let _ = frame(actor, "test0", plain, &[]).expect_ok("nobody restricts it");
            let _ = frame(actor, "test0", bypass, &["--bypass"]).expect_ok("nobody restricts it");
        }
        assert_hears(&mut sniffer, &[70, 71, 80, 81]);
        let denied = [&dropped, &refused, &own].map(|outcome| {
            let by = tight.by(outcome.pid);
            format!("deny egress ip/0 tight -> unknown - deny frame-deny {by}")
        });
        agent.assert_log(&denied);
        agent.assert_counters();

        agent.kill();
        assert_dropped(&tight, "test0");
        let _ = frame(&free, "test0", "72", &[]).expect_ok("with the agent dead");
        agent.restart();
        assert_dropped(&tight, "test0");
        assert_hears(&mut sniffer, &[72]);

        // No policy restricts it any more, and then one does.
        agent.set_policy(&workloads(&["tight", "free"]));
        let _ = frame(&tight, "test0", "63", &[]).expect_ok("no policy");
        agent.set_policy(&text());
        assert_dropped(&tight, "test0");
        assert_hears(&mut sniffer, &[63]);

        agent.kill();
        let output = Command::new(program::product("ringfence"))
            .args(["detach", "--output=json", "--config"])
            .arg(agent.config())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let devices = said.pointer("/versions/0/devices").unwrap();
        assert!(
            devices.as_u64().is_some_and(|devices| devices >= 2),
            "{said}"
        );
        assert!(!sandbox.pins().exists(), "pins stay");
        let _ = frame(&tight, "test0", "64", &[]).expect_ok("after detach");
        let _ = frame(&tight, "test0", "65", &["--bypass"]).expect_ok("after detach");
        assert_hears(&mut sniffer, &[64, 65]);
    });
}

#[test]
fn processes_of_one_cgroup_send_frames_by_their_executables() {
    scene("frames-exe", |sandbox| {
        let far = Namespace::new();
        sandbox.namespace().connect(&far);
        let mut sniffer = listen(sandbox, &far);
        let [tight, free] =
            ["tight", "free"].map(|name| sandbox.actor(name).in_cgroup(sandbox, "both"));
        let workload = |actor: &Actor, name: &str| {
            let exe = actor.program().display();
            ringfence_tests::policy::workload(name, &format!("cgroup = \"/both\", exe = \"{exe}\""))
        };
        let text = workload(&tight, "tight")
            + &workload(&free, "free")
            + &policy("tight", "default-deny = [\"egress\"]", &[]);
        let _ = frame(&tight, "test0", "60", &[]).expect_ok("without the agent");
        let _inside = sandbox.actor("holder").puppet();
        let mut agent = Agent::start(sandbox, &text);
        // What is not judged yet is refused too, and judged then.
        until("free may send", || frame(&free, "test0", "70", &[]).ok());
        assert_dropped(&tight, "test0");
        let refused = frame(&tight, "test0", "61", &["--bypass"]);
        let _ = refused.expect_refused("option", "a bypass");
        let _ = frame(&free, "test0", "71", &["--bypass"]).expect_ok("free");
        agent.kill();
        assert_dropped(&tight, "test0");
        let _ = frame(&free, "test0", "72", &[]).expect_ok("free");
        assert_hears(&mut sniffer, &[60, 70, 71, 72]);
    });
}

#[test]
fn a_device_that_comes_later_is_covered() {
    scene("frames-later", |sandbox| {
        let near = sandbox.namespace();
        let tight = sandbox.actor("tight");
        let mut agent = Agent::start(sandbox, &text());
        // A namespace is covered while guarded processes are in it.
        let _inside = sandbox.actor("holder").puppet();
        until("the namespace is covered", || {
            frame(&tight, "lo", "60", &[]).failed("send", "ENOBUFS")
        });
        near.run("ip link add late0 type veth peer name late1");
        near.run("ip link set late0 up");
        near.run("ip link set late1 up");
        until("the new devices are covered", || {
            ["late0", "late1"]
                .iter()
                .all(|device| frame(&tight, device, "60", &[]).failed("send", "ENOBUFS"))
        });
        // Its pin goes with the device.
        let pins = || pins(sandbox).len();
        until("a pin for each device", || pins() == 3);
        near.run("ip link delete late0");
        until("no pins of devices that are gone", || pins() == 1);

        // A device that comes while there is no agent is covered by the next one.
        agent.kill();
        near.run("ip link add late0 type veth peer name late1");
        near.run("ip link set late0 up");
        near.run("ip link set late1 up");
        agent.restart();
        assert_dropped(&tight, "late0");
        assert_dropped(&tight, "lo");
    });
}

#[test]
fn a_program_that_someone_detaches_from_a_device_is_attached_again() {
    scene("frames-detached", |sandbox| {
        let tight = sandbox.actor("tight");
        let _inside = sandbox.actor("holder").puppet();
        let agent = Agent::start(sandbox, &text());
        assert_dropped(&tight, "lo");
        let pins = pins(sandbox);
        let [pin] = pins.as_slice() else {
            panic!("{pins:?}");
        };
        foreign::detach_link(pin).unwrap();
        until("it is attached again and counted", || {
            agent.status().counts.get("hooks-reattached") == Some(&1)
        });
        assert_dropped(&tight, "lo");
        fs::remove_file(pin).unwrap();
        until("its pin is back", || pin.exists());
        assert_dropped(&tight, "lo");
    });
}

/// The pins of devices.
fn pins(sandbox: &Sandbox) -> Vec<PathBuf> {
    let versions = fs::read_dir(sandbox.pins()).unwrap().flatten();
    let directories = versions.map(|version| version.path().join("frames"));
    directories
        .flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .collect()
}
