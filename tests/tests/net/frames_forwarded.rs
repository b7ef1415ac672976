//! Frames of packet sockets that this host passes on for its containers.

use std::path::Path;

use ringfence_tests::{
    Actor, Agent, Outcome, Sandbox,
    namespace::Namespace,
    policy::{policy, workload},
    poll::until,
    scene,
};

use crate::frames::{assert_hears, frame, listen};

/// Of a frame for everybody a bridge passes on copies, which no socket belongs to.
const TO_FAR: [&str; 2] = ["--to", "9"];

/// Connects a namespace to the bridge of the host by a wire that lets a frame wait for its turn: it is the
/// second of two of 1,400 bytes, which then goes on in no process.
fn plug_in(host: &Namespace, container: &Namespace, device: &str) {
    let path = container.path();
    let holder = path.ancestors().nth(2).and_then(Path::file_name).unwrap();
    let holder = holder.to_string_lossy();
    host.run(&format!(
        "ip link add {device} type veth peer name test0 netns {holder}"
    ));
    host.run(&format!("ip link set {device} up master bridge0"));
    container.run("ip link set test0 up");
    container.run("tc qdisc add dev test0 root tbf rate 80kbit burst 1540 latency 5s");
}

fn two(actor: &Actor, sizes: [&str; 2]) -> [Outcome; 2] {
    sizes.map(|size| frame(actor, "test0", size, &TO_FAR))
}

/// free is not restricted; both are one cgroup, told apart by their executables.
fn text(sandbox: &Sandbox) -> String {
    let exe = |name: &str| {
        let program = sandbox.actor(name);
        let program = program.program().display();
        workload(name, &format!("cgroup = \"/both\", exe = \"{program}\""))
    };
    exe("tight") + &exe("free") + &policy("tight", "default-deny = [\"egress\"]", &[])
}

#[test]
fn a_frame_that_is_passed_on_was_judged_where_it_was_sent() {
    scene("frames-forwarded", |sandbox| {
        let host = sandbox.namespace();
        let [far, inner, hidden] = [(); 3].map(|()| Namespace::new());
        host.connect(&far);
        host.run("ip link add bridge0 type bridge");
        host.run("ip link set bridge0 up");
        host.run("ip link set test0 master bridge0");
        host.run("bridge fdb add 02:00:00:00:00:09 dev test0 master static");
        plug_in(host, &inner, "inner0");
        plug_in(host, &hidden, "hidden0");
        let both = |name: &str, place: &Namespace| {
            let actor = sandbox.actor(name).in_cgroup(sandbox, "both");
            actor.in_namespace(place)
        };
        let [free, tight] = ["free", "tight"].map(|name| both(name, &inner));
        let mut sniffer = listen(sandbox, &far);
        for actor in [&free, &tight, &both("tight", &hidden)] {
            for sent in two(actor, ["1400", "1401"]) {
                let _ = sent.expect_ok("without the agent");
            }
            assert_hears(&mut sniffer, &[1400, 1401]);
        }

        // A namespace is covered while guarded processes are in it.
        let holder = sandbox.actor("holder");
        let _inside = [holder.puppet(), holder.in_namespace(&inner).puppet()];
        let agent = Agent::start(sandbox, &text(sandbox));
        until("free may send", || frame(&free, "test0", "70", &[]).ok());
        until("it is heard", || {
            sniffer.unread().iter().any(|heard| heard.received == 70)
        });
        assert_hears(&mut sniffer, &[70]);
        for sent in two(&free, ["1402", "1403"]) {
            let _ = sent.expect_ok("nobody restricts it");
        }
        assert_hears(&mut sniffer, &[1402, 1403]);
        // Who is restricted sends none, neither from there nor from where nothing is covered.
        for sent in two(&tight, ["1404", "1405"]) {
            assert!(sent.failed("send", "ENOBUFS"), "{sent:?}");
        }
        let _ends_on_the_way = two(&both("tight", &hidden), ["1406", "1407"]);
        for sent in two(&free, ["1408", "1409"]) {
            let _ = sent.expect_ok("nobody restricts it");
        }
        assert_hears(&mut sniffer, &[1408, 1409]);
        agent.assert_counters();
    });
}
