//! Numbers of messages as words, and text from elsewhere made fit for a terminal.

use std::collections::HashMap;

use prost_types::Timestamp;
pub(super) use ringfence_proto::text::{clean, clean_lines};
use ringfence_proto::v1;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub(super) fn verdict(number: i32) -> String {
    match v1::Verdict::try_from(number) {
        Ok(v1::Verdict::Allow) => "allow".to_owned(),
        Ok(v1::Verdict::Deny) => "deny".to_owned(),
        Ok(v1::Verdict::Audit) => "audit".to_owned(),
        Ok(v1::Verdict::Unspecified) | Err(_) => unknown(number),
    }
}

pub(super) fn direction(number: i32) -> String {
    match v1::Direction::try_from(number) {
        Ok(v1::Direction::Egress) => "egress".to_owned(),
        Ok(v1::Direction::Ingress) => "ingress".to_owned(),
        Ok(v1::Direction::Listen) => "listen".to_owned(),
        Ok(v1::Direction::Unspecified) | Err(_) => unknown(number),
    }
}

pub(super) fn event(number: i32) -> String {
    match v1::FlowEvent::try_from(number) {
        Ok(v1::FlowEvent::Open) => "open".to_owned(),
        Ok(v1::FlowEvent::Close) => "close".to_owned(),
        Ok(v1::FlowEvent::Deny) => "deny".to_owned(),
        Ok(v1::FlowEvent::Unspecified) | Err(_) => unknown(number),
    }
}

pub(super) fn protocol(number: u32) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => format!("ip/{other}"),
    }
}

/// Policy and rule, as in `web/egress[0]`; empty if no rule decided.
pub(super) fn rule(rule: Option<&v1::RuleRef>) -> String {
    match rule {
        None => String::new(),
        Some(rule) if rule.policy.is_empty() => format!("#{}", rule.id),
        Some(rule) => clean(&format!("{}/{}", rule.policy, rule.rule)),
    }
}

/// `key=value` pairs in order.
pub(super) fn labels(labels: &HashMap<String, String>) -> String {
    let mut pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| clean(&format!("{key}={value}")))
        .collect();
    pairs.sort();
    pairs.join(",")
}

/// A time as RFC 3339 has it, in UTC; empty if it is absent.
pub(super) fn time(timestamp: Option<&Timestamp>) -> String {
    let formatted = timestamp
        .and_then(moment)
        .and_then(|moment| moment.format(&Rfc3339).ok());
    formatted.unwrap_or_default()
}

/// Time of day with milliseconds, in UTC.
pub(super) fn time_of_day(timestamp: Option<&Timestamp>) -> String {
    let Some(moment) = timestamp.and_then(moment) else {
        return "--:--:--.---".to_owned();
    };
    let (hour, minute, second, milli) = moment.time().as_hms_milli();
    format!("{hour:02}:{minute:02}:{second:02}.{milli:03}")
}

fn moment(timestamp: &Timestamp) -> Option<OffsetDateTime> {
    let ns = i128::from(timestamp.seconds) * 1_000_000_000 + i128::from(timestamp.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(ns).ok()
}

/// Bytes with a unit.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    match UNITS.iter().find(|(size, _)| count >= *size) {
        None => format!("{count}B"),
        Some((size, unit)) => {
            // Split so that ten times the rest can't overflow.
            let tenths = (count % size) / (size / 10);
            format!("{}.{}{unit}", count / size, tenths.min(9))
        }
    }
}

/// Where the file is that a process runs.
pub(super) fn executable_state(number: i32) -> String {
    match v1::ExecutableState::try_from(number) {
        Ok(v1::ExecutableState::OnDisk) => "on-disk".to_owned(),
        Ok(v1::ExecutableState::Deleted) => "deleted".to_owned(),
        Ok(v1::ExecutableState::Memfd) => "memfd".to_owned(),
        Ok(v1::ExecutableState::OtherMounts) => "other-mounts".to_owned(),
        Ok(v1::ExecutableState::Foreign) => "foreign".to_owned(),
        Ok(v1::ExecutableState::Unreadable) => "unreadable".to_owned(),
        Ok(v1::ExecutableState::Unspecified) | Err(_) => unknown(number),
    }
}

fn unknown(number: i32) -> String {
    format!("unknown({number})")
}
