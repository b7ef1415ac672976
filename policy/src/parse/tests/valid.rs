//! Valid documents and what they become.

use std::collections::BTreeMap;

use ringfence_common::abi::{Direction, identity::WORLD};

use super::{document, parse, parse_one};
use crate::model::{Peer, Ports, RuleKind, Section, Selector};

pub(super) const EVERYTHING: &str = r#"
[[workload]]
name = "web"
match = { cgroup = "/web.slice/**", systemd-user-unit = "web@.service", systemd-user-slice = "app.slice", user = "www", uid = 0x21, group = "adm", gid = 4 }

[[workload]]
name = "api"
labels = { app = "api", tier = "x" }
match = { systemd-unit = "api.service", systemd-slice = "api.slice", exe = "/usr/bin/api", sha256 = "00000000000000000000000000000000000000000000000000000000000000FF" }
allow-self = false

[[policy]]
name = "p"
applies-to = { app = "api" }
mode = "draft"
not-before = 2026-01-01T00:00:00+02:00
not-after = 2027-01-31T18:00:00Z
default-deny = ["listen", "egress", "listen"]

[[policy.ingress]]
from = [{ workload = "web", verified = true }, { labels = { app = "api" } }]
ports = ["8080/tcp", "icmp/8", "icmpv6/128"]

[[policy.egress]]
to = [{ cidr = "10.20.0.0/16", except = ["10.20.9.0/24"] }, { entity = "world" }]
ports = ["443/tcp", "8000-8100/udp"]

[[policy.deny-egress]]
to = []

[[policy.egress]]
ports = ["tcp", "ip/47", "icmp"]

[[policy.listen]]
ports = ["1-65535/tcp"]

[[policy.deny-listen]]
[[policy.deny-ingress]]
"#;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|&(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

fn ports(protocol: u8, first: u16, last: u16) -> Ports {
    Ports {
        protocol,
        first,
        last,
    }
}

#[test]
fn workloads_carry_every_key() {
    let set = parse_one(EVERYTHING).unwrap();
    let [api, web] = &*set.workloads else {
        panic!("{set:#?}")
    };
    assert_eq!(
        (api.name.as_str(), api.line, api.allow_self),
        ("api", 6, false)
    );
    assert_eq!(*api.labels, labels(&[("app", "api"), ("tier", "x")]));
    let mut hash = [0; 32];
    hash[31] = 255;
    for selector in [
        Selector::SystemdUnit("api.service".into()),
        Selector::SystemdSlice("api.slice".into()),
        Selector::Exe("/usr/bin/api".into()),
        Selector::Sha256(hash),
    ] {
        assert!(api.selectors.contains(&selector), "{selector:?}");
    }
    assert_eq!(
        (web.file.as_str(), web.line, web.allow_self),
        ("a.toml", 2, true)
    );
    assert!(
        web.selectors
            .contains(&Selector::SystemdUserUnit("web@.service".into()))
    );
    assert!(
        web.selectors
            .contains(&Selector::SystemdUserSlice("app.slice".into()))
    );
    assert!(web.selectors.contains(&Selector::Uid(33)));
    assert!(web.selectors.contains(&Selector::User("www".into())));
    assert!(web.selectors.contains(&Selector::Gid(4)));
    assert!(web.selectors.contains(&Selector::Group("adm".into())));
    assert!(web.labels.is_empty());
}

#[test]
fn container_selectors_are_flattened_to_their_keys() {
    let text = r#"
[[workload]]
name = "w"
match.container = { name = "web", image = "docker.io/library/web:1", label."com.example/x.y" = "z" }
match.k8s = { namespace = "shop", service-account = "web", pod-name = "web-0", pod-label = { app = "web" } }
"#;
    let set = parse_one(text).unwrap();
    let shown: Vec<(&str, &str)> = set.workloads[0]
        .selectors
        .iter()
        .map(|selector| {
            let Selector::Container { key, value } = selector else {
                panic!("{selector:?}");
            };
            (key.as_str(), value.as_str())
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("container.image", "docker.io/library/web:1"),
            ("container.label.com.example/x.y", "z"),
            ("container.name", "web"),
            ("k8s.namespace", "shop"),
            ("k8s.pod-label.app", "web"),
            ("k8s.pod-name", "web-0"),
            ("k8s.service-account", "web"),
        ]
    );
}

#[test]
fn cgroup_globs_stay_within_a_component() {
    let of = |glob: &str| {
        let text = format!("[[workload]]\nname = \"w\"\nmatch = {{ cgroup = \"{glob}\" }}\n");
        let set = parse_one(&text).unwrap();
        match set.workloads[0].selectors.as_slice() {
            [Selector::Cgroup(glob)] => glob.compile_matcher(),
            other => panic!("{other:?}"),
        }
    };
    assert!(of("/a/*").is_match("/a/b"));
    assert!(!of("/a/*").is_match("/a/b/c"));
    assert!(of("/a/**").is_match("/a/b/c"));
    assert!(of("/").is_match("/"));
}

#[test]
fn policies_carry_every_key() {
    let set = parse_one(EVERYTHING).unwrap();
    let [policy] = set.policies.as_slice() else {
        panic!("{set:#?}")
    };
    assert_eq!(
        (policy.name.as_str(), policy.line, policy.draft),
        ("p", 12, true)
    );
    assert_eq!(policy.applies_to, labels(&[("app", "api")]));
    assert_eq!(policy.default_deny, [Direction::Listen, Direction::Egress]);
    assert_eq!(policy.not_before.unwrap().unix_timestamp(), 1_767_218_400);
    assert_eq!(policy.not_after.unwrap().unix_timestamp(), 1_801_418_400);
}

#[test]
fn rules_keep_the_order_of_the_document() {
    let set = parse_one(EVERYTHING).unwrap();
    let rules = &set.policies[0].rules;
    let places: Vec<(String, usize)> = rules
        .iter()
        .map(|rule| (rule.section.place(rule.index), rule.line))
        .collect();
    let expected = [
        ("ingress[0]", 20),
        ("egress[0]", 24),
        ("deny-egress[0]", 28),
        ("egress[1]", 31),
        ("listen[0]", 34),
        ("deny-listen[0]", 37),
        ("deny-ingress[0]", 38),
    ];
    assert_eq!(
        places,
        expected.map(|(place, line)| (place.to_owned(), line))
    );
    assert_eq!(
        rules[2].section,
        Section {
            direction: Direction::Egress,
            kind: RuleKind::Deny
        }
    );
    assert_eq!(rules[2].peers, Some(Vec::new()));
    assert_eq!((&rules[6].peers, &rules[6].ports), (&None, &None));
}

#[test]
fn peers_and_ports() {
    let set = parse_one(EVERYTHING).unwrap();
    let rules = &set.policies[0].rules;
    assert_eq!(
        rules[0].peers,
        Some(vec![
            Peer::Workload {
                name: "web".into(),
                verified: true
            },
            Peer::Labels {
                labels: labels(&[("app", "api")]),
                verified: false
            },
        ])
    );
    assert_eq!(
        rules[1].peers,
        Some(vec![
            Peer::Cidr {
                net: "10.20.0.0/16".parse().unwrap(),
                except: vec!["10.20.9.0/24".parse().unwrap()],
            },
            Peer::Entity(WORLD),
        ])
    );
    assert_eq!(
        rules[0].ports,
        Some(vec![
            ports(6, 8080, 8080),
            ports(1, 8, 8),
            ports(58, 128, 128)
        ])
    );
    assert_eq!(
        rules[1].ports,
        Some(vec![ports(6, 443, 443), ports(17, 8000, 8100)])
    );
    assert_eq!(
        rules[3].ports,
        Some(vec![
            ports(6, 0, 65535),
            ports(47, 0, 65535),
            ports(1, 0, 65535)
        ])
    );
    assert_eq!(rules[4].ports, Some(vec![ports(6, 1, 65535)]));
}

#[test]
fn order_of_documents_does_not_matter() {
    let (workloads, policies) = EVERYTHING.split_at(EVERYTHING.find("[[policy]]").unwrap());
    let a = document("w.toml", workloads);
    let b = document("p.toml", policies);
    let one = parse(&[a.clone(), b.clone()]).unwrap();
    assert_eq!(one, parse(&[b, a]).unwrap());
    assert_eq!((one.workloads.len(), one.policies.len()), (2, 1));
    assert!(parse(&[]).unwrap().workloads.is_empty());
}
