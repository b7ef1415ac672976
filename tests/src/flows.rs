//! Flow records as lines, which tests write down and compare.
//!
//! ```text
//! deny egress tcp web -> db 127.0.0.1:5432 deny default-deny by web[411]
//! close ingress tcp web -> api 127.0.0.1:8080 allow rule-allow api/ingress[0] 3/7B by api[402]
//! ```
//! After the verdict come its reason and rule; `draft …` where the draft verdict differs; `peer` when the
//! peer's policy decided; `revoked`; `unfinished` when the connection was never established; the bytes
//! from source to destination and back, for close records; the process.

use std::fmt::Write as _;

use ringfence_proto::v1::{Decision, Direction, Flow, FlowEnd, FlowEvent, Verdict};

/// A record as a line.
#[must_use]
pub fn line(flow: &Flow) -> String {
    let mut line = format!(
        "{} {} {} {} -> {} {} {}",
        event(flow),
        direction(flow),
        protocol(flow.protocol),
        name(flow.source.as_ref()),
        name(flow.destination.as_ref()),
        place(flow.destination.as_ref()),
        decision(flow.enforced.as_ref()),
    );
    if flow.enforced != flow.draft {
        let _ = write!(line, " draft {}", decision(flow.draft.as_ref()));
    }
    let marks = [
        (flow.decided_by_peer, " peer"),
        (flow.revoked, " revoked"),
        (flow.never_established, " unfinished"),
    ];
    for (_, mark) in marks.iter().filter(|(set, _)| *set) {
        line.push_str(mark);
    }
    if flow.event() == FlowEvent::Close {
        let _ = write!(line, " {}/{}B", flow.forward_bytes, flow.reverse_bytes);
    }
    if let Some(process) = &flow.process {
        let _ = write!(line, " by {}[{}]", process.command, process.pid);
    }
    line
}

/// A line with `*` in place of the bytes.
#[must_use]
pub fn without_bytes(line: &str) -> String {
    let bytes = |word: &str| word.ends_with('B') && word.contains('/') && !word.contains('[');
    let words = line
        .split(' ')
        .map(|word| if bytes(word) { "*" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Name of what happened.
#[must_use]
pub fn event(flow: &Flow) -> &'static str {
    match flow.event() {
        FlowEvent::Open => "open",
        FlowEvent::Close => "close",
        FlowEvent::Deny => "deny",
        FlowEvent::Unspecified => "?",
    }
}

/// Name of the direction.
#[must_use]
pub fn direction(flow: &Flow) -> &'static str {
    match flow.direction() {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
        Direction::Listen => "listen",
        Direction::Unspecified => "?",
    }
}

/// Name of a verdict.
#[must_use]
pub fn verdict(number: i32) -> &'static str {
    match Verdict::try_from(number) {
        Ok(Verdict::Allow) => "allow",
        Ok(Verdict::Deny) => "deny",
        Ok(Verdict::Audit) => "audit",
        Ok(Verdict::Unspecified) | Err(_) => "?",
    }
}

/// Whether the record is about TCP to one of these ports.
#[must_use]
pub fn is_call_to(flow: &Flow, ports: &std::ops::Range<u16>) -> bool {
    let port = flow.destination.as_ref().map_or(0, |end| end.port);
    flow.protocol == 6 && u16::try_from(port).is_ok_and(|port| ports.contains(&port))
}

fn protocol(number: u32) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => format!("ip/{other}"),
    }
}

fn name(end: Option<&FlowEnd>) -> &str {
    end.map_or("-", |end| end.workload.as_str())
}

fn place(end: Option<&FlowEnd>) -> String {
    end.map_or_else(
        || "-".to_owned(),
        |end| {
            if end.address.is_empty() {
                "-".to_owned()
            } else if end.address.contains(':') {
                format!("[{}]:{}", end.address, end.port)
            } else {
                format!("{}:{}", end.address, end.port)
            }
        },
    )
}

fn decision(decision: Option<&Decision>) -> String {
    let Some(decision) = decision else {
        return "?".to_owned();
    };
    let mut text = format!("{} {}", verdict(decision.verdict), decision.reason);
    if let Some(rule) = &decision.rule {
        let _ = write!(text, " {}/{}", rule.policy, rule.rule);
    }
    text
}
