//! `[[workload]]`.

use std::net::IpAddr;

use super::{
    report::{Fault, Report},
    selector,
    table::{Table, Value},
};
use crate::model::{RESERVED, Workload};

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
    let name = table.name(report);
    if let Some(fault) = ambiguous(&name) {
        report.fault(&table.place("name"), fault);
    }
    let mut selectors = selectors.unwrap_or_default();
    selectors.shrink_to_fit();
    Some(Workload {
        name,
        labels: table.labels(report, "labels").into(),
        selectors,
        allow_self: table.boolean(report, "allow-self").unwrap_or(true),
        file: report.file(),
        line: report.line(&table.span),
    })
}

/// Why flow records and questions could not tell the name from something else.
fn ambiguous(name: &str) -> Option<Fault> {
    let address = name.split_once('/').map_or(name, |(address, _)| address);
    let what =
        if RESERVED.iter().any(|(reserved, _)| *reserved == name) || name.starts_with("unknown(") {
            "stands for a reserved identity in flow records"
        } else if address.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            "reads as an address"
        } else if name.contains('@') {
            "reads as a workload and its address (`NAME@ADDRESS`)"
        } else {
            return None;
        };
    Some(Fault::new(
        format!("a workload can't be called {name:?}: that {what}"),
        "choose another name",
    ))
}
