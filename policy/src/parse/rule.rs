//! The rule tables of a policy: `[[policy.egress]]` and its kin.

use ringfence_common::abi::{
    Direction,
    identity::{HOST, REMOTE_HOST, WORLD},
};
use toml::de::DeValue;

use super::{
    Reference, cidr, ports,
    report::{Fault, Report, Span},
    suggest,
    table::{Table, Value, string},
};
use crate::model::{Peer, Ports, Rule, RuleKind, Section};

/// Every section that a policy can have.
pub(super) const SECTIONS: [Section; 6] = [
    section(Direction::Egress, RuleKind::Allow),
    section(Direction::Ingress, RuleKind::Allow),
    section(Direction::Listen, RuleKind::Allow),
    section(Direction::Egress, RuleKind::Deny),
    section(Direction::Ingress, RuleKind::Deny),
    section(Direction::Listen, RuleKind::Deny),
];

const fn section(direction: Direction, kind: RuleKind) -> Section {
    Section { direction, kind }
}

/// Keys of a peer of which it must have exactly one.
const PEER_KINDS: [&str; 4] = ["labels", "workload", "cidr", "entity"];

/// Rules of every section, in the order of the document.
pub(super) fn read_all(
    report: &mut Report<'_>,
    policy: &Table<'_, '_>,
    references: &mut Vec<Reference>,
) -> Vec<Rule> {
    let mut rules: Vec<(usize, Rule)> = Vec::new();
    for section in SECTIONS {
        let Some(value) = policy.get(section.name()) else {
            continue;
        };
        let Some(list) = value.get_ref().as_array() else {
            let name = section.name();
            report.error(
                &value.span(),
                format!("`{name}` must be a list of rules"),
                format!("write `[[policy.{name}]]` with two brackets"),
            );
            continue;
        };
        for (index, value) in list.iter().enumerate() {
            if let Some(rule) = read(report, value, section, index, references) {
                rules.push((value.span().start, rule));
            }
        }
    }
    rules.sort_by_key(|(start, _)| *start);
    exact(rules.into_iter().map(|(_, rule)| rule))
}

fn read(
    report: &mut Report<'_>,
    value: &Value<'_>,
    section: Section,
    index: usize,
    references: &mut Vec<Reference>,
) -> Option<Rule> {
    let table = Table::open(report, value, &format!("a rule of `{}`", section.name()))?;
    let (peer_key, wrong_keys) = match section.direction {
        Direction::Egress => (Some("to"), &["from"][..]),
        Direction::Ingress => (Some("from"), &["to"][..]),
        Direction::Listen => (None, &["to", "from"][..]),
    };
    let known: Vec<&str> = peer_key.into_iter().chain(["ports"]).collect();
    table.allow(report, &known, wrong_keys);
    for wrong in wrong_keys.iter().filter(|key| table.get(key).is_some()) {
        let remedy = peer_key.map_or_else(
            || {
                "remove it: listening has no peer; restrict peers in `[[policy.ingress]]`"
                    .to_owned()
            },
            |right| format!("write `{right}`, or move the rule to the other direction"),
        );
        let message = format!(
            "`{wrong}` does not belong in a rule of `{}`",
            section.name()
        );
        report.error(&table.place(wrong), message, remedy);
    }
    let peers = peer_key
        .and_then(|key| table.list(report, key))
        .map(|list| {
            exact(
                list.iter()
                    .filter_map(|value| peer(report, value, references)),
            )
        });
    Some(Rule {
        section,
        index,
        peers,
        ports: table.list(report, "ports").map(|list| {
            list.iter()
                .filter_map(|value| port_entry(report, value))
                .collect()
        }),
        line: report.line(&table.span),
    })
}

/// Without room for more: they are kept by the ten thousand.
fn exact<T>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut list: Vec<T> = items.collect();
    list.shrink_to_fit();
    list
}

fn port_entry(report: &mut Report<'_>, value: &Value<'_>) -> Option<Ports> {
    if let DeValue::Integer(number) = value.get_ref() {
        report.error(
            &value.span(),
            format!("port {number} has no protocol"),
            format!("write \"{number}/tcp\" or \"{number}/udp\""),
        );
        return None;
    }
    let text = string(report, value, "ports")?;
    let parsed = ports::parse(text);
    parsed
        .map_err(|fault| report.fault(&value.span(), fault))
        .ok()
}

fn peer(
    report: &mut Report<'_>,
    value: &Value<'_>,
    references: &mut Vec<Reference>,
) -> Option<Peer> {
    let table = Table::open(report, value, "a peer")?;
    table.allow(
        report,
        &["labels", "workload", "cidr", "entity", "verified", "except"],
        &[],
    );
    let kinds: Vec<&str> = PEER_KINDS
        .into_iter()
        .filter(|key| table.get(key).is_some())
        .collect();
    let [kind] = kinds.as_slice() else {
        let message = match kinds.as_slice() {
            [] => "a peer says nothing of who it is".to_owned(),
            several => format!("a peer has more than one of: {}", several.join(", ")),
        };
        let remedy = "write exactly one of `labels`, `workload`, `cidr`, `entity`; several peers are several tables";
        report.error(&table.span, message, remedy);
        return None;
    };
    misplaced(report, &table, kind, "verified", &["labels", "workload"]);
    misplaced(report, &table, kind, "except", &["cidr"]);
    let verified = table.boolean(report, "verified").unwrap_or(false);
    match *kind {
        "labels" => Some(Peer::Labels {
            labels: table.labels(report, "labels"),
            verified,
        }),
        "workload" => {
            let name = table.string(report, "workload")?.to_owned();
            references.push(Reference {
                workload: name.clone(),
                file: report.file(),
                line: report.line(&table.place("workload")),
            });
            Some(Peer::Workload { name, verified })
        }
        "cidr" => cidr_peer(report, &table),
        _ => {
            let name = table.string(report, "entity")?;
            entity(name)
                .map_err(|fault| report.fault(&table.place("entity"), fault))
                .ok()
        }
    }
}

/// Reports `key` where the kind of the peer has no use for it.
fn misplaced(
    report: &mut Report<'_>,
    table: &Table<'_, '_>,
    kind: &str,
    key: &str,
    belongs_to: &[&str],
) {
    if table.get(key).is_some() && !belongs_to.contains(&kind) {
        report.error(
            &table.place(key),
            format!("`{key}` has no meaning for a peer given by `{kind}`"),
            format!(
                "remove it, or give the peer by `{}`",
                belongs_to.join("` or `")
            ),
        );
    }
}

fn cidr_peer(report: &mut Report<'_>, table: &Table<'_, '_>) -> Option<Peer> {
    let text = table.string(report, "cidr")?;
    let net = cidr::parse(text)
        .map_err(|fault| report.fault(&table.place("cidr"), fault))
        .ok();
    let mut except = Vec::new();
    for value in table.list(report, "except").unwrap_or_default() {
        let span: Span = value.span();
        let Some(text) = string(report, value, "except") else {
            continue;
        };
        match cidr::parse(text) {
            Ok(inner) => {
                if let Some(fault) = net.and_then(|net| cidr::outside(net, inner)) {
                    report.fault(&span, fault);
                }
                except.push(inner);
            }
            Err(fault) => report.fault(&span, fault),
        }
    }
    Some(Peer::Cidr { net: net?, except })
}

fn entity(name: &str) -> Result<Peer, Fault> {
    match name {
        "world" => Ok(Peer::Entity(WORLD)),
        "host" => Ok(Peer::Entity(HOST)),
        "remote-host" => Ok(Peer::Entity(REMOTE_HOST)),
        other => Err(Fault::new(
            format!("unknown entity {other:?}"),
            suggest::remedy(other, &["world", "host", "remote-host"]),
        )),
    }
}
