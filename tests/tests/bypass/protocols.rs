//! Kinds of sockets.

use ringfence_tests::{Agent, scene};

use crate::ground::{Ground, Judged, closed_rogue};

/// What a kind of socket is, as the kernel's numbers, and what becomes of it.
struct Kind {
    what: &'static str,
    numbers: &'static str,
    /// What a kernel answers that lacks the protocol.
    absent: &'static str,
    /// Protocol and reason of the record.
    record: [&'static str; 2],
}

const fn kind(
    what: &'static str,
    numbers: &'static str,
    absent: &'static str,
    record: [&'static str; 2],
) -> Kind {
    Kind {
        what,
        numbers,
        absent,
        record,
    }
}

const RAW: &str = "raw-socket-deny";
const PROTOCOL: &str = "protocol-deny";
const NO_PROTOCOL: &str = "EPROTONOSUPPORT";
const NO_TYPE: &str = "ESOCKTNOSUPPORT";

const KINDS: &[Kind] = &[
    kind("raw TCP", "2 3 6", NO_TYPE, ["tcp", RAW]),
    kind("raw UDP over IPv6", "10 3 17", NO_TYPE, ["udp", RAW]),
    kind(
        "raw with its own header (IPPROTO_RAW)",
        "2 3 255",
        NO_TYPE,
        ["ip/255", RAW],
    ),
    kind("IGMP", "2 3 2", NO_TYPE, ["ip/2", RAW]),
    kind("Multipath TCP", "2 1 262", NO_PROTOCOL, ["tcp", PROTOCOL]),
    kind(
        "Multipath TCP over IPv6",
        "10 1 262",
        NO_PROTOCOL,
        ["tcp", PROTOCOL],
    ),
    kind("UDP-Lite", "2 2 136", NO_PROTOCOL, ["ip/136", PROTOCOL]),
    kind(
        "UDP-Lite over IPv6",
        "10 2 136",
        NO_PROTOCOL,
        ["ip/136", PROTOCOL],
    ),
    kind("SCTP", "2 1 132", NO_PROTOCOL, ["ip/132", PROTOCOL]),
    kind(
        "SCTP, one to many",
        "2 5 132",
        NO_TYPE,
        ["ip/132", PROTOCOL],
    ),
    kind("DCCP", "2 6 33", NO_TYPE, ["ip/33", PROTOCOL]),
    kind("SMC", "2 1 256", NO_PROTOCOL, ["ip/0", PROTOCOL]),
];

/// Where the kernel lacks the protocol, nobody can make the socket, with Ringfence or without.
#[test]
fn sockets_that_no_hook_judges_flow_by_flow_are_not_made() {
    scene("protocols", |sandbox| {
        let ground = Ground::new(sandbox);
        let socket = |name: &str, kind: &Kind| {
            let step = format!("open {} 10", kind.numbers);
            ground.actor(name).puppet().ask(&step)
        };
        let there = |kind: &&Kind| {
            let made = socket("rogue", kind);
            let absent = made.failed("open", kind.absent);
            assert!(made.ok() || absent, "{}: {made:?}", kind.what);
            made.ok()
        };
        let (there, absent): (Vec<_>, Vec<_>) = KINDS.iter().partition(there);
        let agent = Agent::start(sandbox, &closed_rogue());
        let mut judged = Judged::default();
        for kind in there {
            let _ = socket("free", kind).expect_ok(kind.what);
            let refused = socket("rogue", kind).expect_refused("open", kind.what);
            let [protocol, reason] = kind.record;
            let by = ground.actor("rogue").by(refused.pid);
            let record = format!("deny egress {protocol} rogue -> unknown - deny {reason} {by}");
            let mut new = judged.news(&agent);
            new.retain(|line| line.starts_with("deny "));
            assert_eq!(new, [record], "{}", kind.what);
        }
        for kind in absent {
            for name in ["free", "rogue"] {
                let made = socket(name, kind);
                assert!(made.failed("open", kind.absent), "{}: {made:?}", kind.what);
            }
        }
        let left = judged.news(&agent);
        assert!(
            !left.iter().any(|line| line.starts_with("deny ")),
            "{left:#?}"
        );
        agent.assert_counters();
    });
}
