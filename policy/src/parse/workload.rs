//! `[[workload]]`.

use super::{
    report::Report,
    selector,
    table::{Table, Value},
};
use crate::model::Workload;

const KEYS: [&str; 4] = ["name", "labels", "match", "allow-self"];

pub(super) fn read(report: &mut Report<'_>, value: &Value<'_>) -> Option<Workload> {
    let table = Table::open(report, value, "a workload")?;
    table.allow(report, &KEYS, &[]);
    table.require(
        report,
        "match",
        "say which processes it has, such as `match = { systemd-unit = \"web.service\" }`",
    );
    let selectors = table.get("match").and_then(|value| {
        let matched = Table::open(report, value, "`match`")?;
        Some(selector::read(report, &matched))
    });
    Some(Workload {
        name: table.name(report),
        labels: table.labels(report, "labels"),
        selectors: selectors.unwrap_or_default(),
        allow_self: table.boolean(report, "allow-self").unwrap_or(true),
        file: report.file(),
        line: report.line(&table.span),
    })
}
