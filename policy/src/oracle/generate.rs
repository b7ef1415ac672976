//! Random policies and packets from a small world, so that they meet often.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use ringfence_common::abi::{
    Direction,
    identity::{FIRST_WORKLOAD, HOST, REMOTE_HOST, UNKNOWN, WORLD},
    tuple::{ICMP, ICMPV6, TCP, UDP},
};
use time::{Duration, OffsetDateTime};

use super::SplitMix64;
use crate::{
    compile::Context,
    explain::Query,
    model::{
        Identities, Peer, Policy, PolicySet, Ports, Rule, RuleKind, Section, Selector, Workload,
    },
};

/// Queries of one case.
const QUERIES: usize = 40;
const APPS: [&str; 3] = ["a", "b", "c"];
const TIERS: [&str; 2] = ["x", "y"];
const DIRECTIONS: [Direction; 5] = [
    Direction::Egress,
    Direction::Egress,
    Direction::Ingress,
    Direction::Ingress,
    Direction::Listen,
];
const PORTS: [u16; 12] = [1, 22, 79, 80, 81, 443, 7999, 8000, 8050, 8100, 8101, 65535];
const ADDRESSES: [IpAddr; 7] = [
    IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)),
    IpAddr::V4(Ipv4Addr::new(10, 1, 2, 131)),
    IpAddr::V4(Ipv4Addr::new(10, 1, 200, 7)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 5)),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// A valid policy, identities, a context and packets to judge. The same seed gives the same case.
/// Times lie within two hours of the context's `now`; `boot_now_ns` may be replaced by a real one.
#[must_use]
pub fn random_case(seed: u64) -> (PolicySet, Identities, Context, Vec<Query>) {
    let mut rng = SplitMix64::new(seed);
    let context = Context {
        // Within the years that both clocks can hold.
        now: OffsetDateTime::UNIX_EPOCH + Duration::days(20_000),
        boot_now_ns: 1_000_000_000_000 + rng.next_u64() % 1_000_000_000,
        deny_unselected: rng.chance(40),
    };
    let count = 3 + rng.below(4);
    let workloads: Vec<Arc<Workload>> = (0..count)
        .map(|number| Arc::new(workload(&mut rng, number)))
        .collect();
    let mut identities = Identities::new();
    for (identity, workload) in (FIRST_WORKLOAD..).zip(&workloads) {
        let _ = identities.insert(workload.name.clone(), identity);
    }
    let count = rng.below(6);
    let policies = (0..count).map(|number| policy(&mut rng, number, &workloads, &context));
    let policies: Vec<_> = policies.map(Arc::new).collect();
    let set = PolicySet {
        policies,
        workloads: workloads.into(),
    };
    let known: Vec<u32> = identities.values().copied().collect();
    let queries = (0..QUERIES).map(|_| query(&mut rng, &known)).collect();
    (set, identities, context, queries)
}

fn workload(rng: &mut SplitMix64, number: usize) -> Workload {
    let mut labels = one_label("app", rng.pick(&APPS));
    if rng.chance(60) {
        labels.append(&mut one_label("tier", rng.pick(&TIERS)));
    }
    Workload {
        name: format!("w{number}"),
        labels: labels.into(),
        selectors: vec![Selector::SystemdUnit(format!("w{number}.service"))],
        allow_self: rng.chance(70),
        file: "random.toml".to_owned(),
        line: 1 + number,
    }
}

fn policy(
    rng: &mut SplitMix64,
    number: usize,
    workloads: &[Arc<Workload>],
    context: &Context,
) -> Policy {
    let not_before = match rng.below(10) {
        0 => Some(context.now - Duration::minutes(200)),
        1 => Some(context.now + Duration::minutes(10)),
        _ => None,
    };
    let not_after = match rng.below(10) {
        0 | 1 => Some(context.now - Duration::minutes(90)),
        2..5 => Some(context.now + Duration::minutes(20 + 40 * i64::from(rng.chance(50)))),
        _ => None,
    };
    let mut places = BTreeMap::<Section, usize>::new();
    let rules = (0..rng.below(5)).map(|line| {
        let section = Section {
            direction: rng.pick(&DIRECTIONS),
            kind: if rng.chance(70) {
                RuleKind::Allow
            } else {
                RuleKind::Deny
            },
        };
        let place = places.entry(section).or_default();
        let index = *place;
        *place += 1;
        rule(rng, section, index, line, workloads)
    });
    let rules = rules.collect();
    let directions = [Direction::Egress, Direction::Ingress, Direction::Listen];
    Policy {
        name: format!("p{number}"),
        applies_to: selector(rng),
        draft: rng.chance(30),
        not_after: not_after.filter(|&end| not_before.is_none_or(|from| from < end)),
        not_before,
        default_deny: directions.into_iter().filter(|_| rng.chance(15)).collect(),
        rules,
        file: "random.toml".to_owned(),
        line: 100 * (1 + number),
    }
}

fn rule(
    rng: &mut SplitMix64,
    section: Section,
    index: usize,
    line: usize,
    workloads: &[Arc<Workload>],
) -> Rule {
    let names: Vec<&str> = workloads
        .iter()
        .map(|workload| workload.name.as_str())
        .collect();
    let peers = match rng.below(10) {
        _ if section.direction == Direction::Listen => None,
        0 => None,
        1 => Some(Vec::new()),
        _ => Some((0..=rng.below(3)).map(|_| peer(rng, &names)).collect()),
    };
    let ports = match rng.below(20) {
        0..4 => None,
        4 => Some(Vec::new()),
        _ => Some((0..=rng.below(3)).map(|_| ports(rng)).collect()),
    };
    Rule {
        section,
        index,
        peers,
        ports,
        line,
    }
}

fn peer(rng: &mut SplitMix64, names: &[&str]) -> Peer {
    match rng.below(10) {
        0..2 => Peer::Labels {
            labels: selector(rng),
            verified: rng.chance(40),
        },
        2..4 => Peer::Workload {
            name: rng.pick(names).to_owned(),
            verified: rng.chance(40),
        },
        4 => Peer::Entity(rng.pick(&[WORLD, HOST, REMOTE_HOST])),
        _ => {
            let address = rng.pick(&ADDRESSES);
            let net = range(rng, address, 0);
            let except = (0..rng.below(3)).filter_map(|_| {
                let near = rng.pick(&ADDRESSES);
                let inner = range(rng, near, net.prefix_len() + 1);
                net.contains(&inner).then_some(inner)
            });
            Peer::Cidr {
                except: except.collect(),
                net,
            }
        }
    }
}

/// A range around `address` with at least `shortest` bits, as far as the family has them.
fn range(rng: &mut SplitMix64, address: IpAddr, shortest: u8) -> IpNet {
    let lengths: &[u8] = match address {
        IpAddr::V4(_) => &[0, 7, 8, 16, 23, 24, 25, 31, 32],
        IpAddr::V6(_) => &[0, 3, 32, 48, 64, 127, 128],
    };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = rng.pick(lengths).max(shortest).min(longest);
    IpNet::new(address, prefix).map_or_else(|_| IpNet::from(address), |net| net.trunc())
}

fn ports(rng: &mut SplitMix64) -> Ports {
    let protocol = rng.pick(&[TCP, TCP, TCP, UDP, UDP, ICMP, ICMPV6, 47]);
    let (a, b) = match protocol {
        TCP | UDP => (rng.pick(&PORTS), rng.pick(&PORTS)),
        ICMP => (8, 8),
        ICMPV6 => (128, 128),
        _ => (0, u16::MAX),
    };
    let (first, last) = match rng.below(10) {
        0 => (0, u16::MAX),
        1..5 => (a.min(b), a.max(b)),
        _ => (a, if protocol == 47 { b } else { a }),
    };
    Ports {
        protocol,
        first,
        last,
    }
}

fn query(rng: &mut SplitMix64, workloads: &[u32]) -> Query {
    let local = if rng.chance(4) {
        HOST
    } else {
        rng.pick(workloads)
    };
    let peer = match rng.below(10) {
        0 => rng.pick(&[UNKNOWN, HOST, REMOTE_HOST]),
        1..3 => WORLD,
        3 => local,
        _ => rng.pick(workloads),
    };
    let protocol = rng.pick(&[TCP, TCP, TCP, TCP, UDP, UDP, ICMP, ICMPV6, 47, 132]);
    let port = match protocol {
        TCP | UDP => rng.pick(&PORTS),
        ICMP => rng.pick(&[0, 3, 8]),
        ICMPV6 => rng.pick(&[1, 128, 135]),
        _ => 0,
    };
    Query {
        local,
        direction: rng.pick(&DIRECTIONS),
        peer,
        verified: rng.chance(50),
        peer_address: rng.chance(85).then(|| address(rng)),
        protocol,
        port,
    }
}

/// One of the addresses or one beside it, in a form that the kernel can see.
fn address(rng: &mut SplitMix64) -> [u8; 16] {
    let mut octets = match rng.pick(&ADDRESSES) {
        IpAddr::V4(v4) if rng.chance(15) => {
            let [a, b, c, d] = v4.octets();
            [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
        }
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let flip = 1 << rng.below(8);
    if let Some(byte) = octets.get_mut(13 + rng.below(3)).filter(|_| rng.chance(30)) {
        *byte ^= flip;
    }
    octets
}

fn selector(rng: &mut SplitMix64) -> BTreeMap<String, String> {
    let mut labels = match rng.below(4) {
        0 => one_label("tier", rng.pick(&TIERS)),
        _ => one_label("app", rng.pick(&APPS)),
    };
    if rng.chance(15) {
        labels.append(&mut one_label("tier", rng.pick(&TIERS)));
    }
    labels
}

fn one_label(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}
