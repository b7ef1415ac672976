//! The failsafe list: inbound flows that no policy can cut.

use std::{net::IpAddr, ops::Range};

use ipnet::IpNet;
use ringfence_common::{
    abi::{FailsafeEntry, settings::MAX_FAILSAFE, tuple},
    logic::address::map_v4,
};
use serde::Deserialize;
use toml::Spanned;

use super::read::Section;

const PORTS_REMEDY: &str =
    "write a port or a range with its protocol, as in \"22/tcp\" or \"8000-8100/udp\"";
const FROM_REMEDY: &str = "write an address or a network, as in \"10.0.0.0/8\"";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    ports: Vec<Spanned<String>>,
    from: Vec<Spanned<String>>,
}

/// Reads `inbound` and multiplies ports by networks.
pub(super) fn read(section: &mut Section<'_, '_>) -> Vec<FailsafeEntry> {
    let Some(raw) = section.take::<Vec<Spanned<Raw>>>("inbound") else {
        return Vec::new();
    };
    let at = raw.span();
    let mut entries = Vec::new();
    for item in raw.into_inner() {
        expand(section, &item.span(), item.get_ref(), &mut entries);
    }
    if entries.len() > MAX_FAILSAFE {
        section.problem(
            &at,
            format!(
                "the failsafe list has {} entries (ports times networks)",
                entries.len()
            ),
            &format!("keep at most {MAX_FAILSAFE}: use port ranges and wider networks"),
        );
        entries.truncate(MAX_FAILSAFE);
    }
    entries
}

fn expand(
    section: &mut Section<'_, '_>,
    at: &Range<usize>,
    raw: &Raw,
    into: &mut Vec<FailsafeEntry>,
) {
    if raw.ports.is_empty() || raw.from.is_empty() {
        let message =
            "an entry of the failsafe list without ports or networks matches nothing".to_owned();
        section.problem(
            at,
            message,
            "name at least one of each, or remove the entry",
        );
    }
    let ports = checked(section, &raw.ports, ports, "ports", PORTS_REMEDY);
    let networks = checked(section, &raw.from, network, "network", FROM_REMEDY);
    for (protocol, first_port, last_port) in ports {
        into.extend(networks.iter().map(|(address, prefix)| FailsafeEntry {
            address: *address,
            first_port,
            last_port,
            prefix: *prefix,
            protocol,
            ..FailsafeEntry::default()
        }));
    }
}

fn checked<T>(
    section: &mut Section<'_, '_>,
    texts: &[Spanned<String>],
    parse: fn(&str) -> Option<T>,
    what: &str,
    remedy: &str,
) -> Vec<T> {
    let mut values = Vec::new();
    for text in texts {
        match parse(text.get_ref()) {
            Some(value) => values.push(value),
            None => section.problem(
                &text.span(),
                format!("`{}` is no {what}", text.get_ref()),
                remedy,
            ),
        }
    }
    values
}

/// `22/tcp` or `8000-8100/udp` as protocol, first and last port.
fn ports(text: &str) -> Option<(u8, u16, u16)> {
    let (range, protocol) = text.split_once('/')?;
    let protocol = match protocol {
        "tcp" => tuple::TCP,
        "udp" => tuple::UDP,
        _ => return None,
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((protocol, first, last))
}

/// A network in the form of the map: IPv4 mapped, host bits zero.
fn network(text: &str) -> Option<([u8; 16], u8)> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network.trunc(),
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    Some(match network {
        IpNet::V4(v4) => (map_v4(v4.network().octets()), v4.prefix_len() + 96),
        IpNet::V6(v6) => (v6.network().octets(), v6.prefix_len()),
    })
}
