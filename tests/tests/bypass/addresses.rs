//! Other ways to write where a packet goes, and ways for a packet to reach more than one.

use ringfence_tests::scene;

use crate::{
    attempt::{Attempt, attempt},
    ground::{Ground, rules},
};

/// Whoever hides from this has to be taken for somebody else.
const NOT_TO_VAULT: (&str, &str) = ("deny-egress", "to = [{ workload = \"vault\" }]");
const ALL: (&str, &str) = ("egress", "");

/// TCP, connected UDP and unconnected UDP to one address, which is shown as `shown`.
fn three_ways(family: u8, address: &str, peer: &str, shown: &str, why: &str) -> [Attempt; 3] {
    let record = |protocol: &str, port: u16| {
        format!("deny egress {protocol} rogue -> {peer} {shown}:{port} deny {why} by ")
    };
    let udp = format!("open {family} 2 0 10; option 10 1 6 01000000");
    [
        attempt(
            &format!("TCP to {address}"),
            &format!("open {family} 1 0 10; connect 10 {address}:7000; exchange 10"),
            "connect EPERM",
            &record("tcp", 7000),
        ),
        // The server answers from an address of its choice, which a connected socket doesn't take.
        attempt(
            &format!("connected UDP to {address}"),
            &format!(
                "b open 10 2 0 11; b bind 11 [::]:7003; {udp}; connect 10 {address}:7003; send 10; b receive 11"
            ),
            "connect EPERM",
            &record("udp", 7003),
        )
        .with(if peer == "world" { "far" } else { "vault" }),
        attempt(
            &format!("UDP to {address}"),
            &format!("{udp}; message 10 {address}:7001 0; receive 10"),
            "message EPERM",
            &record("udp", 7001),
        ),
    ]
}

#[test]
fn every_name_of_this_host_is_this_host() {
    scene("aliases", |sandbox| {
        let aliases = [
            (2, "127.0.0.1", "127.0.0.1"),
            (2, "127.9.9.9", "127.9.9.9"),
            (2, "0.0.0.0", "127.0.0.1"),
            (2, "10.99.0.1", "10.99.0.1"),
            (10, "[::1]", "[::1]"),
            (10, "[::]", "[::1]"),
            (10, "[fd99::1]", "[fd99::1]"),
            (10, "[::ffff:127.0.0.1]", "127.0.0.1"),
            (10, "[::ffff:0.0.0.0]", "127.0.0.1"),
            (10, "[::ffff:10.99.0.1]", "10.99.0.1"),
        ];
        let why = "rule-deny rogue/deny-egress[0]";
        let attempts: Vec<_> = aliases
            .iter()
            .flat_map(|(family, address, shown)| three_ways(*family, address, "vault", shown, why))
            .collect();
        Ground::new(sandbox).play(&rules(&[ALL, NOT_TO_VAULT]), &attempts);
    });
}

#[test]
fn an_ipv4_address_inside_an_ipv6_address_is_judged_as_ipv4() {
    scene("inside", |sandbox| {
        let ground = Ground::new(sandbox);
        // Who translates NAT64 (RFC 6052) is not needed: the far host has the address itself.
        ground
            .far()
            .run("ip address add 64:ff9b::a63:2/128 dev test0 nodad");
        ground.near().run("ip route add 64:ff9b::/96 via fd99::2");
        let why = "rule-deny rogue/deny-egress[0]";
        let denied = "to = [{ cidr = \"10.99.0.2/32\" }]";
        let mut attempts = Vec::new();
        for (family, address, shown) in [
            (2, "10.99.0.2", "10.99.0.2"),
            (10, "[::ffff:10.99.0.2]", "10.99.0.2"),
            (10, "[64:ff9b::a63:2]", "[64:ff9b::a63:2]"),
        ] {
            attempts.extend(three_ways(family, address, "world", shown, why));
        }
        ground.play(&rules(&[ALL, ("deny-egress", denied)]), &attempts);
    });
}

#[test]
fn a_range_of_ipv6_does_not_allow_the_ipv4_addresses_inside_it() {
    scene("inside-allow", |sandbox| {
        let ground = Ground::new(sandbox);
        ground
            .far()
            .run("ip address add 64:ff9b::a63:2/128 dev test0 nodad");
        ground.near().run("ip route add 64:ff9b::/96 via fd99::2");
        let mut attempts = Vec::new();
        for (address, shown) in [
            ("[::ffff:10.99.0.2]", "10.99.0.2"),
            ("[64:ff9b::a63:2]", "[64:ff9b::a63:2]"),
        ] {
            attempts.extend(three_ways(10, address, "world", shown, "default-deny"));
        }
        let only = ("egress", "to = [{ cidr = \"::/0\" }]");
        ground.play(&rules(&[only]), &attempts);
    });
}

#[test]
fn a_scope_or_a_device_leads_to_nobody_else() {
    scene("scoped", |sandbox| {
        let ground = Ground::new(sandbox);
        ground
            .far()
            .run("ip address add fe80::f/64 dev test0 nodad");
        ground
            .near()
            .run("ip address add fe80::e/64 dev test0 nodad");
        // Devices of a new namespace are numbered from 1; which number the wire has depends on the kernel.
        let index = ground.index_of("test0");
        let denied =
            "to = [{ cidr = \"fe80::/10\" }, { cidr = \"fd99::2/128\" }, { cidr = \"ff00::/8\" }]";
        let why = "rule-deny rogue/deny-egress[0]";
        let scoped = format!("[fe80::f%{index}]");
        let mut attempts = Vec::from(three_ways(10, &scoped, "world", "[fe80::f]", why));
        let record = |to: &str| format!("deny egress udp rogue -> world {to}:7001 deny {why} by ");
        let through = "open 10 2 0 10; option 10 1 25 746573743000";
        attempts.extend([
            attempt(
                "a device chosen with SO_BINDTODEVICE",
                &format!("{through}; message 10 [fd99::2]:7001 0; receive 10"),
                "message EPERM",
                &record("[fd99::2]"),
            ),
            attempt(
                "all nodes of a link",
                &format!("{through}; message 10 [ff02::1%{index}]:7001 0; receive 10"),
                "message EPERM",
                &record("[ff02::1]"),
            ),
        ]);
        ground.play(&rules(&[ALL, ("deny-egress", denied)]), &attempts);
    });
}

#[test]
fn a_datagram_to_many_on_this_host_is_judged_for_each() {
    scene("many", |sandbox| {
        let out = "open 2 2 0 10; option 10 0 32 7f000001; option 10 1 6 01000000";
        // A member of 239.1.1.1 on the loopback device.
        let join = |part: &str| {
            format!(
                "{part} open 2 2 0 11; {part} option 11 0 35 ef0101017f000001; {part} bind 11 0.0.0.0:7002"
            )
        };
        let attempts = [
            attempt(
                "multicast on the loopback device",
                &format!("{}; {out}; message 10 239.1.1.1:7002 0; b receive 11", join("b")),
                "receive timeout",
                "deny ingress udp rogue -> api 239.1.1.1:7002 deny rule-deny rogue/deny-egress[0] peer by ",
            ),
            attempt(
                "multicast to two of whom one is allowed",
                &format!("{}; {}; {out}; message 10 239.1.1.1:7002 0; b receive 11", join("b"), join("c")),
                "receive timeout",
                "deny ingress udp rogue -> api 239.1.1.1:7002 deny rule-deny rogue/deny-egress[0] peer by ",
            )
            .and("dns"),
            attempt(
                "broadcast on the loopback device",
                &format!("b open 2 2 0 11; b bind 11 0.0.0.0:7003; {out}; message 10 127.255.255.255:7003 0; b receive 11"),
                "message EPERM",
                "deny egress udp rogue -> api 127.255.255.255:7003 deny rule-deny rogue/deny-egress[0] by ",
            ),
        ]
        .map(|attempt| attempt.with("api"));
        let not_to_api = ("deny-egress", "to = [{ workload = \"api\" }]");
        Ground::new(sandbox).play(&rules(&[ALL, not_to_api]), &attempts);
    });
}
