//! Rules: peers, ranges and ports.

use super::{error_of_egress, error_of_policy};

#[test]
fn ranges() {
    let peer = |cidr| error_of_egress(&format!("to = [{{ cidr = \"{cidr}\" }}]"));
    assert_eq!(
        peer("10.20.0.0/33"),
        "a.toml:10: \"10.20.0.0/33\" is not an address range; write it as \"10.20.0.0/16\" or \"2001:db8::/32\""
    );
    assert_eq!(
        peer("10.20.0.1"),
        "a.toml:10: \"10.20.0.1\" is not an address range; write \"10.20.0.1/32\""
    );
    assert_eq!(
        peer("10.20.0.1/16"),
        "a.toml:10: \"10.20.0.1/16\" has bits set beyond its prefix; write \"10.20.0.0/16\", or \"10.20.0.1/32\" for the one address"
    );
    assert_eq!(
        peer("2001:db8::1/32"),
        "a.toml:10: \"2001:db8::1/32\" has bits set beyond its prefix; write \"2001:db8::/32\", or \"2001:db8::1/128\" for the one address"
    );
    assert_eq!(
        peer("::ffff:10.1.2.3/104"),
        "a.toml:10: \"::ffff:10.1.2.3/104\" is an IPv4-mapped range; such traffic is judged by its IPv4 address; write \"10.0.0.0/8\""
    );
    assert_eq!(
        peer("64:ff9b::/96"),
        "a.toml:10: \"64:ff9b::/96\" is a NAT64 range; such traffic is judged by its IPv4 address; write \"0.0.0.0/0\""
    );
}

#[test]
fn exceptions_lie_inside_their_range() {
    let peer = |except| {
        error_of_egress(&format!(
            "to = [{{ cidr = \"10.0.0.0/8\", except = [\"{except}\"] }}]"
        ))
    };
    assert_eq!(
        peer("11.0.0.0/16"),
        "a.toml:10: exception \"11.0.0.0/16\" is not inside \"10.0.0.0/8\"; remove it, or correct one of them"
    );
    assert_eq!(
        peer("::/0"),
        "a.toml:10: exception \"::/0\" is not inside \"10.0.0.0/8\"; remove it, or correct one of them"
    );
    assert_eq!(
        peer("10.0.0.0/8"),
        "a.toml:10: exception \"10.0.0.0/8\" leaves nothing of the range; remove the peer, or except less"
    );
    assert_eq!(
        peer("10.9.0.1/24"),
        "a.toml:10: \"10.9.0.1/24\" has bits set beyond its prefix; write \"10.9.0.0/24\", or \"10.9.0.1/32\" for the one address"
    );
}

#[test]
fn ports() {
    let cases = [
        (
            "\"8100-8000/tcp\"",
            "\"8100-8000/tcp\" is a range that ends before it starts; swap the ends: \"8000-8100/tcp\"",
        ),
        (
            "\"0/tcp\"",
            "\"0/tcp\" has port 0, which no packet carries; start at 1, or write \"tcp\" for every port",
        ),
        (
            "\"0-80/udp\"",
            "\"0-80/udp\" has port 0, which no packet carries; start at 1, or write \"udp\" for every port",
        ),
        (
            "\"65536/tcp\"",
            "\"65536/tcp\" is not a port or a range of ports; write numbers from 1 to 65535, such as \"443/tcp\" or \"8000-8100/tcp\"",
        ),
        (
            "\"+80/tcp\"",
            "\"+80/tcp\" is not a port or a range of ports; write numbers from 1 to 65535, such as \"443/tcp\" or \"8000-8100/tcp\"",
        ),
        (
            "\"/tcp\"",
            "\"/tcp\" is not a port or a range of ports; write numbers from 1 to 65535, such as \"443/tcp\" or \"8000-8100/tcp\"",
        ),
        (
            "\"443/tpc\"",
            "unknown protocol \"tpc\" in \"443/tpc\"; did you mean `tcp`?",
        ),
        (
            "\"443\"",
            "port \"443\" has no protocol; write \"443/tcp\" or \"443/udp\"",
        ),
        (
            "443",
            "port 443 has no protocol; write \"443/tcp\" or \"443/udp\"",
        ),
        (
            "\"tcp/443\"",
            "\"tcp/443\" has protocol and port in the wrong order; write \"443/tcp\"",
        ),
        (
            "\"8/icmp\"",
            "\"8/icmp\" has protocol and number in the wrong order; write \"icmp/8\"",
        ),
        (
            "\"icmp/256\"",
            "\"icmp/256\" is not an ICMP type; write a number from 0 to 255, or \"icmp\" for every type",
        ),
        (
            "\"ip/0\"",
            "\"ip/0\" is not a protocol; write a protocol number from 1 to 255; leave `ports` out to cover every protocol",
        ),
        (
            "\"ip\"",
            "\"ip\" names no protocol; write its number, such as \"ip/47\"; leave `ports` out to cover every protocol",
        ),
    ];
    for (port, expected) in cases {
        let shown = error_of_egress(&format!("ports = [{port}]"));
        assert_eq!(shown, format!("a.toml:10: {expected}"));
    }
    let shown = error_of_egress("ports = [\"443/quic\"]");
    assert!(
        shown.starts_with("a.toml:10: unknown protocol \"quic\" in \"443/quic\"; write it as ")
    );
}

#[test]
fn rules_name_workloads_that_exist() {
    assert_eq!(
        error_of_egress("to = [{ workload = \"wbe\" }]"),
        "a.toml:10: unknown workload \"wbe\"; did you mean \"web\"?"
    );
    assert_eq!(
        error_of_egress("to = [\n  { workload = \"web\" },\n  { workload = \"postgres\" }]"),
        "a.toml:12: unknown workload \"postgres\"; declare it with `[[workload]]` in one of the documents"
    );
}

#[test]
fn peer_key_fits_the_direction() {
    assert_eq!(
        error_of_egress("from = [{ workload = \"web\" }]"),
        "a.toml:10: `from` does not belong in a rule of `egress`; write `to`, or move the rule to the other direction"
    );
    assert_eq!(
        error_of_policy("[[policy.deny-ingress]]\nto = []"),
        "a.toml:10: `to` does not belong in a rule of `deny-ingress`; write `from`, or move the rule to the other direction"
    );
    assert_eq!(
        error_of_policy("[[policy.listen]]\nfrom = []"),
        "a.toml:10: `from` does not belong in a rule of `listen`; remove it: listening has no peer; restrict peers in `[[policy.ingress]]`"
    );
}

#[test]
fn a_peer_is_one_thing() {
    let remedy = "write exactly one of `labels`, `workload`, `cidr`, `entity`; several peers are several tables";
    assert_eq!(
        error_of_egress("to = [{ cidr = \"10.0.0.0/8\", entity = \"world\" }]"),
        format!("a.toml:10: a peer has more than one of: cidr, entity; {remedy}")
    );
    assert_eq!(
        error_of_egress("to = [{ verified = true }]"),
        format!("a.toml:10: a peer says nothing of who it is; {remedy}")
    );
    assert_eq!(
        error_of_egress("to = [{ cidr = \"10.0.0.0/8\", verified = true }]"),
        "a.toml:10: `verified` has no meaning for a peer given by `cidr`; remove it, or give the peer by `labels` or `workload`"
    );
    assert_eq!(
        error_of_egress("to = [{ entity = \"world\", verified = true }]"),
        "a.toml:10: `verified` has no meaning for a peer given by `entity`; remove it, or give the peer by `labels` or `workload`"
    );
    assert_eq!(
        error_of_egress("to = [{ workload = \"web\", except = [] }]"),
        "a.toml:10: `except` has no meaning for a peer given by `workload`; remove it, or give the peer by `cidr`"
    );
    assert_eq!(
        error_of_egress("to = [{ entity = \"wrold\" }]"),
        "a.toml:10: unknown entity \"wrold\"; did you mean `world`?"
    );
}
