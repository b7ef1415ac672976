//! Whose a socket is, by what the kernel says of it.

use ringfence_common::{
    abi::{
        CgroupEntry, Owner, ProcessKey,
        executable::ANY_UID,
        identity::{AGENT, HOST},
        tuple::TCP,
    },
    logic::address::map_v4,
};

use super::*;

pub(super) const WEB: Identity = 300;
pub(super) const GONE: Identity = 301;
pub(super) const KEY: ExecutableKey = ExecutableKey {
    inode: 5,
    ctime_sec: 1,
    ctime_nsec: 0,
    device: 7,
};

pub(super) fn socket(owner: Option<(Identity, ExecutableKey)>) -> FoundSocket {
    FoundSocket {
        namespace: 1,
        protocol: TCP,
        address: map_v4([10, 0, 0, 1]),
        port: 8080,
        dual_stack: false,
        device: 0,
        receives: true,
        owner: owner.map(|(identity, executable)| Owner {
            identity,
            executable,
            cgroup: 11,
            tgid: 77,
            uid: 1000,
            ..Owner::default()
        }),
        unjudged: false,
        cgroup: 10,
        uid: 1000,
        cookie: 1,
        inode: 2,
    }
}

fn datagram(socket: FoundSocket) -> FoundSocket {
    FoundSocket {
        protocol: UDP,
        ..socket
    }
}

fn tables() -> Tables {
    let entry = |identity, class| CgroupEntry {
        identity,
        class,
        below: 0,
    };
    let key = ProcessKey {
        class: 1,
        executable: 2,
        uid: ANY_UID,
    };
    Tables {
        cgroups: [
            (1u64, entry(HOST, 0)),
            (10, entry(WEB, 0)),
            (11, entry(HOST, 1)),
        ]
        .into_iter()
        .collect(),
        executables: [(KEY, 2u32)].into_iter().collect(),
        processes: [(key, WEB)].into_iter().collect(),
        ..Tables::default()
    }
}

fn found(sockets: &[FoundSocket]) -> Endpoints {
    let names = BTreeMap::from([(WEB, Arc::from("web"))]);
    let who = Who {
        tables: &tables(),
        root: 1,
        names: &names,
    };
    who.endpoints(sockets)
}

#[test]
fn the_owner_decides_and_what_it_leaves_open_the_tables_do() {
    let other = ExecutableKey { inode: 6, ..KEY };
    let cases = [
        ("owned", socket(Some((WEB, KEY))), true),
        ("of the host", socket(Some((HOST, KEY))), false),
        ("of the agent", socket(Some((AGENT, KEY))), false),
        (
            "of a workload that is gone",
            socket(Some((GONE, KEY))),
            false,
        ),
        ("judged since", socket(Some((PENDING, KEY))), true),
        ("still pending", socket(Some((PENDING, other))), false),
        (
            "owned, its file replaced since",
            socket(Some((WEB, other))),
            true,
        ),
        (
            "UDP, its file replaced since",
            datagram(socket(Some((WEB, other)))),
            true,
        ),
        (
            "UDP, someone else since",
            datagram(socket(Some((GONE, KEY)))),
            true,
        ),
        (
            "UDP of the agent",
            datagram(socket(Some((AGENT, KEY)))),
            false,
        ),
        ("never seen, in a known cgroup", socket(None), true),
        (
            "never seen, where processes differ",
            FoundSocket {
                cgroup: 11,
                ..socket(None)
            },
            false,
        ),
        (
            "never seen, outside",
            FoundSocket {
                cgroup: 12,
                ..socket(None)
            },
            false,
        ),
        (
            "connected",
            FoundSocket {
                receives: false,
                ..socket(Some((WEB, KEY)))
            },
            false,
        ),
        (
            "not bound",
            FoundSocket {
                port: 0,
                ..socket(Some((WEB, KEY)))
            },
            false,
        ),
    ];
    for (what, socket, expected) in cases {
        let found = found(&[socket]);
        assert_eq!(!found.list.is_empty(), expected, "{what}: {found:?}");
    }
}

#[test]
fn sockets_that_share_a_port_are_one_endpoint() {
    let one = socket(Some((WEB, KEY)));
    let v6 = FoundSocket {
        address: [0; 16],
        dual_stack: true,
        ..one
    };
    let sockets = [one, one, v6, socket(None)];
    let endpoints = found(&sockets);
    let addresses: Vec<_> = endpoints
        .list
        .iter()
        .map(|e| e.address.to_string())
        .collect();
    assert_eq!(addresses, ["10.0.0.1", "::"]);
    let message = endpoints.list.last().map(v1::Endpoint::from);
    assert!(message.is_some_and(|m| m.dual_stack && m.address == [0; 16] && m.workload == "web"));
}

#[test]
fn more_than_fit_are_counted() {
    let many = (0..=MOST).map(|number| FoundSocket {
        port: u16::try_from(number % 60_000 + 1).unwrap_or(1),
        device: u32::try_from(number / 60_000).unwrap_or(0),
        ..socket(Some((WEB, KEY)))
    });
    let found = found(&many.collect::<Vec<_>>());
    assert_eq!((found.list.len(), found.omitted), (MOST, 1));
}
