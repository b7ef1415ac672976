//! A flow record on one line, and as a row of a table.

use std::{fmt::Write as _, time::Duration};

use ringfence_proto::v1;

use super::{
    output::{Colour, Style},
    words,
};

/// Header of [`row`].
pub(super) const HEADER: [&str; 10] = [
    "TIME",
    "EVENT",
    "VERDICT",
    "DRAFT",
    "DIRECTION",
    "PROTOCOL",
    "SOURCE",
    "DESTINATION",
    "REASON",
    "RULE",
];

/// Widths of [`fixed`]; the last column has what is left.
const WIDTHS: [usize; 9] = [12, 5, 7, 7, 9, 8, 48, 32, 16];

/// For example `12:00:01.123 DENY  egress tcp web(1234 curl) 10.0.0.1:40000 -> db 10.0.0.2:5432 default-deny`.
pub(super) fn compact(flow: &v1::Flow, style: Style) -> String {
    let mut parts = vec![
        style.paint(Colour::Faint, &words::time_of_day(flow.time.as_ref())),
        what(flow, style),
        format!("{:<7}", words::direction(flow.direction)),
        words::protocol(flow.protocol),
    ];
    parts.extend(source(flow));
    if flow.source.is_some() {
        parts.push("->".to_owned());
    }
    parts.extend(destination(flow));
    if let Some(enforced) = &flow.enforced {
        parts.push(decision(enforced));
    }
    if flow.decided_by_peer {
        parts.push("(by peer)".to_owned());
    }
    if flow.revoked {
        parts.push("(revoked)".to_owned());
    }
    if let (Some(enforced), Some(draft)) = (&flow.enforced, &flow.draft)
        && enforced.verdict != draft.verdict
    {
        let text = format!(
            "[draft: {} {}]",
            words::verdict(draft.verdict),
            decision(draft)
        );
        parts.push(style.paint(Colour::Warning, &text));
    }
    if flow.event == i32::from(v1::FlowEvent::Close) {
        parts.push(volume(flow));
    }
    parts.join(" ")
}

/// The record as a row under [`HEADER`].
pub(super) fn row(flow: &v1::Flow) -> Vec<String> {
    let enforced = flow.enforced.clone().unwrap_or_default();
    let draft = flow.draft.clone().unwrap_or_default();
    vec![
        words::time_of_day(flow.time.as_ref()),
        words::event(flow.event),
        words::verdict(enforced.verdict),
        words::verdict(draft.verdict),
        words::direction(flow.direction),
        words::protocol(flow.protocol),
        source(flow).unwrap_or_default(),
        destination(flow).unwrap_or_default(),
        words::clean(&enforced.reason),
        words::rule(enforced.rule.as_ref()),
    ]
}

/// A row, or the header, in columns of fixed width, for rows that come one by one. A cell that is wider
/// moves the rest of its line.
pub(super) fn fixed(cells: &[impl AsRef<str>]) -> String {
    let mut line = String::new();
    let widths = WIDTHS.into_iter().chain(std::iter::repeat(0));
    for (cell, width) in cells.iter().zip(widths) {
        let cell = match cell.as_ref() {
            "" => "-",
            cell => cell,
        };
        let _ = write!(line, "{cell:<width$}  ");
    }
    line.trim_end().to_owned()
}

/// The event in capitals; a record that is only reported says so.
fn what(flow: &v1::Flow, style: Style) -> String {
    let audit = flow
        .enforced
        .as_ref()
        .is_some_and(|decision| decision.verdict == i32::from(v1::Verdict::Audit));
    let (text, colour) = match v1::FlowEvent::try_from(flow.event) {
        Ok(v1::FlowEvent::Close) => ("CLOSE".to_owned(), Colour::Faint),
        Ok(v1::FlowEvent::Open | v1::FlowEvent::Deny) if audit => {
            ("AUDIT".to_owned(), Colour::Warning)
        }
        Ok(v1::FlowEvent::Open) => ("OPEN".to_owned(), Colour::Good),
        Ok(v1::FlowEvent::Deny) => ("DENY".to_owned(), Colour::Bad),
        Ok(v1::FlowEvent::Unspecified) | Err(_) => (words::event(flow.event), Colour::Warning),
    };
    style.paint(colour, &format!("{text:<5}"))
}

/// The process stands with the end whose socket reported the flow.
fn source(flow: &v1::Flow) -> Option<String> {
    let is_local = flow.direction != i32::from(v1::Direction::Ingress);
    flow.source
        .as_ref()
        .map(|source| end(source, process(flow).filter(|_| is_local)))
}

fn destination(flow: &v1::Flow) -> Option<String> {
    let is_local = flow.direction != i32::from(v1::Direction::Egress);
    let process = process(flow).filter(|_| is_local);
    flow.destination
        .as_ref()
        .map(|destination| end(destination, process))
}

fn end(end: &v1::FlowEnd, process: Option<String>) -> String {
    let workload = words::clean(&end.workload);
    let process = process.map(|text| format!("({text})")).unwrap_or_default();
    let place = match (end.address.as_str(), end.port) {
        ("", _) => String::new(),
        (address, port) if address.contains(':') => format!(" [{address}]:{port}"),
        (address, port) => format!(" {address}:{port}"),
    };
    format!("{workload}{process}{}", words::clean(&place))
}

fn process(flow: &v1::Flow) -> Option<String> {
    let process = flow.process.as_ref()?;
    Some(format!(
        "{} {}",
        process.pid,
        words::clean(&process.command)
    ))
}

fn decision(decision: &v1::Decision) -> String {
    let reason = words::clean(&decision.reason);
    match words::rule(decision.rule.as_ref()).as_str() {
        "" => reason,
        rule => format!("{reason} {rule}"),
    }
}

fn volume(flow: &v1::Flow) -> String {
    if flow.never_established {
        return "never established".to_owned();
    }
    let duration = Duration::from_micros(flow.duration_ns / 1000);
    let (forward, reverse) = (
        words::bytes(flow.forward_bytes),
        words::bytes(flow.reverse_bytes),
    );
    format!("{forward} -> {reverse} <- {duration:?}")
}
