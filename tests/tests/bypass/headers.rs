//! Packets cut in pieces, and headers between the IP header and the port.

use ringfence_tests::scene;

use crate::{
    attempt::{Attempt, attempt},
    ground::{Ground, closed_rogue, rules},
};

/// `far` with a raw socket, and a UDP socket to hear the answer with.
fn forger(what: &str, port: u16, step: &str, more: &str) -> Attempt {
    let script = format!(
        "open 2 2 17 11; bind 11 10.99.0.2:{port}; open 2 3 17 10; option 10 0 3 01000000; \
         {step} 10 10.99.0.2:{port} 10.99.0.1:7001{more}; receive 11"
    );
    let record = "deny ingress udp world -> vault 10.99.0.1:7001 deny default-deny by ";
    attempt(what, &script, "receive timeout", record)
        .by("far")
        .not_for_free()
}

#[test]
fn what_comes_in_pieces_is_judged_as_a_whole() {
    scene("pieces", |sandbox| {
        let attempts = [
            forger("a datagram by hand", 6301, "forge", ""),
            forger("the smallest fragments", 6302, "fragments", ""),
            // `dns` takes anybody's datagrams; its port is put over that of `vault`.
            forger("fragments that overlap", 6304, "overlap", " 5300"),
            attempt(
                "a SYN by hand",
                "open 2 3 6 10; option 10 0 3 01000000; syn 10 10.99.0.2:6303 10.99.0.1:7000; receive 10",
                "receive timeout",
                "deny ingress tcp world -> vault 10.99.0.1:7000 deny default-deny by ",
            )
            .by("far")
            .not_for_free(),
        ];
        Ground::new(sandbox).play(&closed_rogue(), &attempts);
    });
}

#[test]
fn headers_before_the_port_do_not_hide_it() {
    scene("extensions", |sandbox| {
        // Padding (RFC 8200, section 4.2), as the kernel's numbers: IPPROTO_IPV6 and IPV6_DSTOPTS, IPV6_HOPOPTS.
        let padding = "0000010400000000";
        let record = "deny ingress udp world -> vault [fd99::1]:7001 deny default-deny by ";
        let to_vault = |what: &str, kind: u8| {
            let script = format!(
                "open 10 2 0 10; message 10 [fd99::1]:7001 0 41 {kind} {padding}; receive 10"
            );
            attempt(what, &script, "receive timeout", record)
                .by("far")
                .not_for_free()
        };
        let stream = format!(
            "open 10 1 0 10; option 10 41 59 {padding}; begin 10 [fd99::1]:7000; finish 10; exchange 10"
        );
        let attempts = [
            to_vault("destination options", 59),
            to_vault("hop-by-hop options", 54),
            attempt(
                "destination options on TCP",
                &stream,
                "finish timeout",
                "deny ingress tcp world -> vault [fd99::1]:7000 deny default-deny by ",
            )
            .by("far")
            .not_for_free(),
        ];
        Ground::new(sandbox).play(&closed_rogue(), &attempts);
    });
}

/// Segment routing (RFC 8754): the packet goes to the far host first, and to its destination from there.
#[test]
fn a_way_of_its_own_choice_is_refused_to_a_restricted_workload() {
    scene("segments", |sandbox| {
        let ground = Ground::new(sandbox);
        ground.far().run("ip address add fd98::1/128 dev lo");
        ground.near().run("ip route add fd98::1/128 via fd99::2");
        for device in ["all", "test0"] {
            let name = format!("net/ipv6/conf/{device}/seg6_enabled");
            ground.far().sysctl(&name, "1");
        }
        // Two segments, of which the first is left; the kernel writes the last (IPV6_RTHDR).
        let route = format!(
            "0004040101000000{}fd990000000000000000000000000002",
            "0".repeat(32)
        );
        let attempts = [attempt(
            "an IPv6 routing header",
            &format!(
                "open 10 1 0 10; option 10 41 57 {route}; connect 10 [fd98::1]:7000; exchange 10"
            ),
            "connect ECONNABORTED",
            "deny egress tcp rogue -> unknown [fd98::1]:7000 deny detour-deny by ",
        )];
        let only = ("egress", "to = [{ cidr = \"fd98::1/128\" }]");
        ground.play(&rules(&[only]), &attempts);
    });
}
