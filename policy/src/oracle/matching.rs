//! Whether one rule matches one packet.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use ringfence_common::abi::Direction;

use super::Fact;
use crate::{
    explain::Query,
    model::{Identities, Peer, Policy, PolicySet, Ports, Rule, Workload},
};

/// Peer and port match.
pub(super) fn matches(
    rule: &Rule,
    set: &PolicySet,
    identities: &Identities,
    query: &Query,
    state: &mut impl FnMut(Fact),
) -> bool {
    let mut facts = Vec::new();
    let peer = peer_matches(rule, set, identities, query, &mut |fact| facts.push(fact));
    let port = port_matches(rule.ports.as_deref(), query, &mut |fact| facts.push(fact));
    let empty = [
        (
            &rule.peers.as_ref().map(Vec::len),
            port,
            Fact::EmptyPeerList,
        ),
        (
            &rule.ports.as_ref().map(Vec::len),
            peer,
            Fact::EmptyPortsList,
        ),
    ];
    for (length, other_matches, fact) in empty {
        if *length == Some(0) && other_matches {
            state(fact);
        }
    }
    if port && facts.contains(&Fact::VerifiedRefused) {
        state(Fact::VerifiedRefused);
    }
    if port && facts.contains(&Fact::Except) {
        state(Fact::Except);
    }
    if peer && port {
        facts.into_iter().for_each(state);
    }
    peer && port
}

/// Records where ranges of the direction overlap at the peer's address.
pub(super) fn overlaps(policies: &[&Policy], query: &Query, state: &mut impl FnMut(Fact)) {
    let Some(address) = query.peer_address.map(normal) else {
        return;
    };
    let rules = policies.iter().flat_map(|policy| &policy.rules);
    let rules = rules.filter(|rule| rule.section.direction == query.direction);
    let mut covering = BTreeSet::new();
    for peer in rules.flat_map(|rule| rule.peers.iter().flatten()) {
        if let Peer::Cidr { net, except } = peer {
            if covers(net, address) && !except.iter().any(|net| covers(net, address)) {
                let _ = covering.insert(*net);
            }
            if address.is_ipv4() && matches!(net, IpNet::V6(_)) && net.prefix_len() == 0 {
                state(Fact::V4OutsideV6);
            }
        }
    }
    if covering.len() > 1 {
        state(Fact::CidrNested);
    }
}

fn peer_matches(
    rule: &Rule,
    set: &PolicySet,
    identities: &Identities,
    query: &Query,
    state: &mut impl FnMut(Fact),
) -> bool {
    if rule.section.direction == Direction::Listen {
        return true;
    }
    let Some(peers) = &rule.peers else {
        state(Fact::AnyPeer);
        return true;
    };
    let workload = set
        .workloads
        .iter()
        .find(|workload| identities.get(&workload.name) == Some(&query.peer))
        .map(Arc::as_ref);
    let mut any = false;
    for peer in peers {
        any |= match peer {
            Peer::Labels { labels, verified } => {
                let carries = |workload: &Workload| {
                    labels
                        .iter()
                        .all(|(key, value)| workload.labels.get(key) == Some(value))
                };
                let named = workload.is_some_and(carries);
                if named {
                    state(Fact::Labels);
                }
                named && proved(*verified, query, state)
            }
            Peer::Workload { name, verified } => {
                let named = workload.is_some_and(|workload| workload.name == *name);
                named && proved(*verified, query, state)
            }
            Peer::Cidr { net, except } => in_range(net, except, query, state),
            Peer::Entity(entity) => {
                let is = *entity == query.peer;
                if is {
                    state(Fact::Entity);
                }
                is
            }
        };
    }
    any
}

fn proved(needed: bool, query: &Query, state: &mut impl FnMut(Fact)) -> bool {
    match (needed, query.verified) {
        (false, _) => true,
        (true, true) => {
            state(Fact::VerifiedOnly);
            true
        }
        (true, false) => {
            state(Fact::VerifiedRefused);
            false
        }
    }
}

fn in_range(net: &IpNet, except: &[IpNet], query: &Query, state: &mut impl FnMut(Fact)) -> bool {
    let Some(raw) = query.peer_address else {
        return false;
    };
    let address = normal(raw);
    if !covers(net, address) {
        return false;
    }
    if except.iter().any(|net| covers(net, address)) {
        state(Fact::Except);
        return false;
    }
    if address.is_ipv4() && Ipv6Addr::from(raw).to_ipv4_mapped().is_none() {
        state(Fact::Nat64);
    }
    true
}

/// IPv4-mapped and NAT64 addresses are the IPv4 address inside.
fn normal(address: [u8; 16]) -> IpAddr {
    let v6 = Ipv6Addr::from(address);
    let [.., a, b, c, d] = address;
    match (v6.to_ipv4_mapped(), v6.segments()) {
        (Some(v4), _) => IpAddr::V4(v4),
        (None, [0x64, 0xff9b, 0, 0, 0, 0, _, _]) => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        _ => IpAddr::V6(v6),
    }
}

/// Bit by bit, from the front.
fn covers(net: &IpNet, address: IpAddr) -> bool {
    let bits = |address: IpAddr| -> Vec<bool> {
        let bytes = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let of_byte = |byte: u8| (0..8).map(move |bit| byte & (0x80 >> bit) != 0);
        bytes.into_iter().flat_map(of_byte).collect()
    };
    let (base, sought) = (bits(net.addr()), bits(address));
    let leading = usize::from(net.prefix_len());
    base.len() == sought.len() && base.iter().zip(&sought).take(leading).all(|(a, b)| a == b)
}

fn port_matches(listed: Option<&[Ports]>, query: &Query, state: &mut impl FnMut(Fact)) -> bool {
    let Some(listed) = listed else {
        state(Fact::AnyPort);
        return true;
    };
    let mut any = false;
    for ports in listed {
        if ports.protocol == query.protocol && (ports.first..=ports.last).contains(&query.port) {
            any = true;
            match (ports.first, ports.last) {
                (0, u16::MAX) => state(Fact::WholeProtocol),
                (first, last) if first < last => state(Fact::PortRange),
                _ => {}
            }
        }
    }
    any
}
