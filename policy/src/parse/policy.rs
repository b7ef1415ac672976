//! `[[policy]]` without its rules.

use ringfence_common::abi::Direction;
use time::{Date, Month, OffsetDateTime, Time, UtcOffset};
use toml::value::{Datetime, Offset};

use super::{
    Reference,
    report::Report,
    rule, suggest,
    table::{Table, Value, string},
};
use crate::model::Policy;

const KEYS: [&str; 6] = [
    "name",
    "applies-to",
    "mode",
    "not-before",
    "not-after",
    "default-deny",
];

pub(super) fn read(
    report: &mut Report<'_>,
    value: &Value<'_>,
    references: &mut Vec<Reference>,
) -> Option<Policy> {
    let table = Table::open(report, value, "a policy")?;
    let sections = rule::SECTIONS.iter().map(|section| section.name());
    let known: Vec<&str> = KEYS.into_iter().chain(sections).collect();
    table.allow(report, &known, &[]);
    table.require(
        report,
        "applies-to",
        "say which workloads it is for, such as `applies-to = { app = \"web\" }`",
    );
    let not_before = moment(report, &table, "not-before");
    let not_after = moment(report, &table, "not-after");
    if not_before
        .zip(not_after)
        .is_some_and(|(from, to)| from >= to)
    {
        report.error(
            &table.place("not-after"),
            "the policy never holds: `not-before` is not earlier than `not-after`",
            "swap them or correct one",
        );
    }
    Some(Policy {
        name: table.name(report),
        applies_to: table.labels(report, "applies-to"),
        draft: is_draft(report, &table),
        not_before,
        not_after,
        default_deny: default_deny(report, &table),
        rules: rule::read_all(report, &table, references),
        file: report.file(),
        line: report.line(&table.span),
    })
}

fn is_draft(report: &mut Report<'_>, table: &Table<'_, '_>) -> bool {
    match table.string(report, "mode") {
        None | Some("enforce") => false,
        Some("draft") => true,
        Some(other) => {
            report.error(
                &table.place("mode"),
                format!("unknown mode {other:?}"),
                suggest::remedy(other, &["enforce", "draft"]),
            );
            false
        }
    }
}

fn default_deny(report: &mut Report<'_>, table: &Table<'_, '_>) -> Vec<Direction> {
    let mut directions = Vec::new();
    for value in table.list(report, "default-deny").unwrap_or_default() {
        let direction = match string(report, value, "default-deny") {
            None => continue,
            Some("egress") => Direction::Egress,
            Some("ingress") => Direction::Ingress,
            Some("listen") => Direction::Listen,
            Some(other) => {
                report.error(
                    &value.span(),
                    format!("unknown direction {other:?} in `default-deny`"),
                    suggest::remedy(other, &["egress", "ingress", "listen"]),
                );
                continue;
            }
        };
        if !directions.contains(&direction) {
            directions.push(direction);
        }
    }
    directions
}

fn moment(report: &mut Report<'_>, table: &Table<'_, '_>, key: &str) -> Option<OffsetDateTime> {
    let value = table.get(key)?;
    let Some(datetime) = value.get_ref().as_datetime() else {
        report.error(
            &value.span(),
            format!("`{key}` is not a timestamp"),
            "write it without quotes, such as 2027-01-31T18:00:00Z",
        );
        return None;
    };
    if datetime.offset.is_none() {
        let remedy = if datetime.time.is_some() {
            format!("add the offset, such as {datetime}Z for UTC")
        } else {
            "write date, time and offset, such as 2027-01-31T18:00:00Z".to_owned()
        };
        report.error(&value.span(), format!("`{key}` has no UTC offset"), remedy);
        return None;
    }
    let moment = convert(datetime);
    if moment.is_none() {
        report.error(
            &value.span(),
            format!("`{key}` is not a moment in time"),
            "write a date of the calendar and a time without leap seconds",
        );
    }
    moment
}

fn convert(datetime: &Datetime) -> Option<OffsetDateTime> {
    let (date, time) = (datetime.date?, datetime.time?);
    let month = Month::try_from(date.month).ok()?;
    let date = Date::from_calendar_date(i32::from(date.year), month, date.day).ok()?;
    let second = time.second.unwrap_or(0);
    let nanosecond = time.nanosecond.unwrap_or(0);
    let time = Time::from_hms_nano(time.hour, time.minute, second, nanosecond).ok()?;
    let offset = match datetime.offset? {
        Offset::Z => UtcOffset::UTC,
        Offset::Custom { minutes } => {
            UtcOffset::from_whole_seconds(i32::from(minutes) * 60).ok()?
        }
    };
    Some(OffsetDateTime::new_in_offset(date, time, offset))
}
