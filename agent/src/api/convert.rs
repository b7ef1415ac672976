//! Small conversions from valid types to messages.

use std::time::{SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;
use ringfence_common::logic::verdict::Outcome;
use ringfence_policy::{
    compile::Compiled,
    model::{Policy, Workload},
};
use ringfence_proto::v1;
use time::OffsetDateTime;

/// A time after 1970; what is before it becomes 1970.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}

/// A time of a policy.
pub(super) fn date(time: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: time.unix_timestamp(),
        nanos: i32::try_from(time.nanosecond()).unwrap_or(0),
    }
}

/// Whether a policy selects a workload.
pub(super) fn selects(policy: &Policy, workload: &Workload) -> bool {
    policy
        .applies_to
        .iter()
        .all(|(key, value)| workload.labels.get(key) == Some(value))
}

/// Where rule `id` stands; `None` for 0, which is no rule.
pub(super) fn rule(compiled: &Compiled, id: u32) -> Option<v1::RuleRef> {
    if id == 0 {
        return None;
    }
    let source = compiled.rules.get(&id);
    Some(source.map_or_else(
        || v1::RuleRef {
            id,
            ..v1::RuleRef::default()
        },
        |source| v1::RuleRef {
            id,
            policy: source.policy.clone(),
            rule: source.section.clone(),
            location: format!("{}:{}", source.file, source.line),
        },
    ))
}

/// What was decided, by the rule of these tables.
#[must_use]
pub fn decision(compiled: &Compiled, outcome: &Outcome) -> v1::Decision {
    v1::Decision {
        verdict: outcome.verdict as i32,
        reason: outcome.reason.name().to_owned(),
        rule: rule(compiled, outcome.rule),
    }
}
