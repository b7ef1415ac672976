//! Address classes.

use std::collections::BTreeMap;

use ringfence_common::abi::{
    Direction, RuleKey,
    identity::FIRST_CIDR,
    rule::{TIER_ANY_PROTOCOL, TIER_PEER_CIDR},
};

use super::table;

/// Prefixes as text with their class, counted from 0, and the allow rules' sections of each class.
fn classes(lines: &str) -> (BTreeMap<String, u32>, Vec<Vec<u16>>) {
    let table = table(lines);
    let mut prefixes = BTreeMap::new();
    for (key, class) in &table.cidrs {
        let address = std::net::Ipv6Addr::from(key.address);
        assert!(
            prefixes
                .insert(format!("{address}/{}", key.prefix), class - FIRST_CIDR)
                .is_none()
        );
    }
    let count = prefixes.values().max().map_or(0, |last| last + 1);
    let ports_of = |class| {
        let of_class = |key: &&RuleKey| key.peer == FIRST_CIDR + class;
        table
            .entries
            .keys()
            .filter(of_class)
            .map(|key| key.port)
            .collect()
    };
    (prefixes, (0..count).map(ports_of).collect())
}

/// One egress rule per port, so that the ports of a class name the rules it stands for.
fn rules(peers: &[(u16, &str)]) -> String {
    let rule = |(port, peers): &(u16, &str)| {
        format!("[[policy.egress]]\nports = [\"{port}/tcp\"]\nto = [{peers}]\n")
    };
    peers.iter().map(rule).collect()
}

fn expected(pairs: &[(&str, u32)]) -> BTreeMap<String, u32> {
    pairs
        .iter()
        .map(|&(prefix, class)| (prefix.to_owned(), class))
        .collect()
}

#[test]
fn nested_ranges_get_the_union() {
    let (prefixes, ports) = classes(&rules(&[
        (1, "{ cidr = \"10.0.0.0/8\" }"),
        (2, "{ cidr = \"10.1.0.0/16\" }"),
        (3, "{ cidr = \"10.1.2.0/24\" }, { cidr = \"192.0.2.0/24\" }"),
    ]));
    let of = [
        ("::ffff:10.0.0.0/104", 0),
        ("::ffff:10.1.0.0/112", 1),
        ("::ffff:10.1.2.0/120", 2),
        ("::ffff:192.0.2.0/120", 3),
    ];
    assert_eq!(prefixes, expected(&of));
    assert_eq!(ports, [vec![1], vec![1, 2], vec![1, 2, 3], vec![3]]);
}

#[test]
fn an_exception_takes_its_rule_out_and_leaves_the_others() {
    let (prefixes, ports) = classes(&rules(&[
        (1, "{ cidr = \"10.0.0.0/8\", except = [\"10.1.0.0/16\"] }"),
        (2, "{ cidr = \"10.0.0.0/8\" }"),
        (3, "{ cidr = \"10.1.2.0/24\" }"),
    ]));
    let of = [
        ("::ffff:10.0.0.0/104", 0),
        ("::ffff:10.1.0.0/112", 1),
        ("::ffff:10.1.2.0/120", 2),
    ];
    assert_eq!(prefixes, expected(&of));
    assert_eq!(ports, [vec![1, 2], vec![2], vec![2, 3]]);
}

#[test]
fn an_exception_of_the_only_rule_is_a_class_without_entries() {
    let (prefixes, ports) = classes(&rules(&[(
        1,
        "{ cidr = \"10.0.0.0/8\", except = [\"10.1.0.0/16\"] }",
    )]));
    assert_eq!(
        prefixes,
        expected(&[("::ffff:10.0.0.0/104", 0), ("::ffff:10.1.0.0/112", 1)])
    );
    assert_eq!(ports, [vec![1], vec![]]);
}

#[test]
fn many_ranges_of_one_rule_are_one_class() {
    let (prefixes, ports) = classes(&rules(&[(
        1,
        "{ cidr = \"10.0.0.0/8\" }, { cidr = \"10.1.0.0/16\" }, { cidr = \"2001:db8::/32\" }",
    )]));
    // The inner range changes nothing and is left out.
    assert_eq!(
        prefixes,
        expected(&[("::ffff:10.0.0.0/104", 0), ("2001:db8::/32", 0)])
    );
    assert_eq!(ports, [vec![1]]);
}

#[test]
fn another_peer_of_the_rule_covers_an_exception() {
    let (prefixes, _) = classes(&rules(&[(
        1,
        "{ cidr = \"10.0.0.0/8\", except = [\"10.1.0.0/16\"] }, { cidr = \"10.1.2.0/24\" }",
    )]));
    let of = [
        ("::ffff:10.0.0.0/104", 0),
        ("::ffff:10.1.0.0/112", 1),
        ("::ffff:10.1.2.0/120", 0),
    ];
    assert_eq!(prefixes, expected(&of));
}

#[test]
fn ipv6_ranges_do_not_cover_ipv4() {
    let (prefixes, ports) = classes(&rules(&[
        (1, "{ cidr = \"::/0\" }"),
        (2, "{ cidr = \"10.0.0.0/8\" }"),
    ]));
    let of = [
        ("::/0", 0),
        ("::ffff:0.0.0.0/96", 1),
        ("::ffff:10.0.0.0/104", 2),
    ];
    assert_eq!(prefixes, expected(&of));
    assert_eq!(ports, [vec![1], vec![], vec![2]]);
}

#[test]
fn every_ipv4_address_is_one_prefix() {
    let (prefixes, _) = classes(&rules(&[(1, "{ cidr = \"0.0.0.0/0\" }")]));
    assert_eq!(prefixes, expected(&[("::ffff:0.0.0.0/96", 0)]));
}

#[test]
fn classes_serve_both_directions() {
    let table = table(
        "[[policy.egress]]\nto = [{ cidr = \"10.0.0.0/8\" }]\n[[policy.deny-ingress]]\nfrom = [{ cidr = \"10.0.0.0/8\" }]\n",
    );
    assert_eq!(table.cidrs.len(), 1);
    let directions: Vec<u8> = table.entries.keys().map(|key| key.direction).collect();
    assert_eq!(
        directions,
        [Direction::Egress as u8, Direction::Ingress as u8]
    );
    let tiers = TIER_PEER_CIDR | TIER_ANY_PROTOCOL;
    assert_eq!(table.header.tiers, [tiers, tiers, 0]);
}
