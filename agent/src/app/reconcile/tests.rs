//! The comparison of sockets with what is known of flows.

use ringfence_common::abi::{Decision, socket::PHASE_OPEN, tuple::TCP};

use super::*;

fn socket(cookie: u64, identity: u32, phase: u8, ports: (u16, u16)) -> Connection {
    Connection {
        namespace: 7,
        cookie,
        tuple: Tuple {
            local_port: ports.0,
            remote_port: ports.1,
            protocol: TCP,
            ..Tuple::default()
        },
        known: Some((
            Owner {
                identity,
                ..Owner::default()
            },
            FlowState {
                decision: Decision::default(),
                opened_ns: 1,
                phase,
            },
        )),
    }
}

/// The listing, and how often was asked.
fn compared(known: &[u64], most: usize, sockets: &[Connection]) -> (Listing, usize) {
    let mut asked = 0;
    let known: HashSet<u64> = known.iter().copied().collect();
    let listing = compare(&known, 9, most, |each| {
        asked += 1;
        sockets.iter().for_each(each);
        Ok([7].into())
    });
    (listing.unwrap_or_default(), asked)
}

#[test]
fn what_is_known_is_left_alone_and_what_has_no_socket_is_gone() {
    let sockets = [
        socket(1, 300, PHASE_OPEN, (1, 2)),
        socket(2, 300, PHASE_OPEN, (3, 4)),
        socket(4, 300, PHASE_DENIED, (5, 6)),
        socket(5, UNKNOWN, PHASE_OPEN, (7, 8)),
    ];
    let (listing, asked) = compared(&[1, 3], 10, &sockets);
    assert_eq!(listing.gone, [3].into());
    let new: Vec<u64> = listing.flows.iter().map(|flow| flow.cookie).collect();
    assert_eq!((new, asked), (vec![2], 1));
    assert_eq!((listing.began_ns, listing.namespaces), (9, [7].into()));
}

#[test]
fn no_more_is_kept_than_one_look_may_add() {
    let sockets: Vec<Connection> = (1..=100)
        .map(|n| socket(n, 300, PHASE_OPEN, (1, 2)))
        .collect();
    let known: Vec<u64> = (51..=101).collect();
    let (listing, _) = compared(&known, 10, &sockets);
    assert_eq!(listing.flows.len(), 10);
    assert_eq!(
        listing.gone,
        [101].into(),
        "those beyond are not taken for gone"
    );
}

#[test]
fn the_peer_of_an_idle_flow_is_its_other_end_wherever_that_comes() {
    let other = Connection {
        known: None,
        ..socket(9, 0, PHASE_OPEN, (6, 5))
    };
    let sockets = [
        socket(1, 300, PHASE_NEW, (1, 2)),
        socket(2, 301, PHASE_OPEN, (2, 1)),
        other,
        socket(3, 300, PHASE_NEW, (5, 6)),
        socket(4, 300, PHASE_NEW, (7, 8)),
    ];
    // One end is known already.
    let (listing, asked) = compared(&[2], 10, &sockets);
    let peers: Vec<_> = listing
        .flows
        .iter()
        .map(|flow| (flow.cookie, flow.decision.peer, flow.decision.flags))
        .collect();
    let expected = [
        (1, 301, PEER_VERIFIED),
        (3, HOST, PEER_VERIFIED),
        (4, WORLD, 0),
    ];
    assert_eq!((peers, asked), (expected.to_vec(), 2));
}
