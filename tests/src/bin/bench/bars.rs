//! The bars that were set, each beside what was measured.

use crate::{
    changes::{LARGE, LARGE_ONE_RULE, ONE_RULE, RESET, START_CACHED},
    paired::Paired,
    report::Report,
    scenario::Scenario,
    stats::Spread,
    variant::{MANY, NFT_MANY, NFT_ONE, TEN, Variant},
};

/// One line of the table.
pub struct Bar {
    pub what: &'static str,
    pub wanted: &'static str,
    pub measured: String,
    /// `None` where nothing was measured.
    pub met: Option<bool>,
}

/// All of them.
pub fn table(report: &Report) -> Vec<Bar> {
    let mut bars = vec![
        ratio(
            report,
            Scenario::Stream,
            TEN,
            Variant::Bare,
            "TCP stream, with / without",
            ">= 0.98",
            |it| it >= 0.98,
        ),
        ratio(
            report,
            Scenario::Rr,
            TEN,
            Variant::Bare,
            "TCP request, response, with / without",
            "<= 1.02",
            |it| it <= 1.02,
        ),
        ratio(
            report,
            Scenario::Crr,
            TEN,
            Variant::Bare,
            "connect, request, response, close, with / without",
            "<= 1.06",
            |it| it <= 1.06,
        ),
        missing(
            "connect, request, response, close, with tokens / without",
            "<= 1.08",
            "there are no identities on the wire",
        ),
        ratio(
            report,
            Scenario::Crr,
            MANY,
            TEN,
            "connect, request, response, close, 100,000 entries and 10,000 identities / 10 entries",
            "<= 1.02",
            |it| it <= 1.02,
        ),
        ratio(
            report,
            Scenario::Crr,
            TEN,
            NFT_ONE,
            "connect, request, response, close, Ringfence / nftables with 1 rule",
            "<= 1",
            |it| it <= 1.0,
        ),
        ratio(
            report,
            Scenario::Crr,
            NFT_MANY,
            TEN,
            "connect, request, response, close, nftables with 1,000 rules / Ringfence",
            ">= 5",
            |it| it >= 5.0,
        ),
    ];
    bars.push(time(report, LARGE, "< 1 s", 1_000.0));
    bars.push(time(report, LARGE_ONE_RULE, "< 10 ms", 10.0));
    bars.push(time(report, ONE_RULE, "< 10 ms", 10.0));
    bars.push(time(report, RESET, "< 100 ms", 100.0));
    bars.push(events(report));
    bars.push(memory(report));
    bars.push(time(report, START_CACHED, "< 500 ms", 500.0));
    bars.push(missing(
        "agents on one controller, one-rule change to all",
        "10,000, p99 < 2 s",
        "not part of this bench",
    ));
    bars
}

/// The worst way decides.
fn ratio(
    report: &Report,
    scenario: Scenario,
    one: Variant,
    to: Variant,
    what: &'static str,
    bar: &'static str,
    meets: fn(f64) -> bool,
) -> Bar {
    let of_scenario = |paired: &&Paired| paired.scenario == scenario.name();
    let ratios: Vec<(&Paired, Spread)> = report
        .paired
        .iter()
        .filter(of_scenario)
        .filter_map(|paired| Some((paired, paired.ratio(one, to)?)))
        .collect();
    if ratios.is_empty() {
        return missing(what, bar, "not measured");
    }
    let shown = ratios.iter().map(|(paired, spread)| {
        format!(
            "{:.3} ({:.3}-{:.3}) {} {}",
            spread.median, spread.q1, spread.q3, paired.way, paired.family
        )
    });
    Bar {
        what,
        wanted: bar,
        measured: shown.collect::<Vec<_>>().join("; "),
        met: Some(ratios.iter().all(|(_, spread)| meets(spread.median))),
    }
}

fn time(report: &Report, what: &'static str, bar: &'static str, most: f64) -> Bar {
    match report.changes.iter().find(|change| change.what == what) {
        Some(change) => Bar {
            what,
            wanted: bar,
            measured: format!(
                "{:.1} ms ({:.1}-{:.1})",
                change.millis.median, change.millis.q1, change.millis.q3
            ),
            met: Some(change.millis.median < most),
        },
        None => missing(what, bar, "not measured"),
    }
}

/// Open where the machine makes fewer connections than the bar asks for and none was lost: that shows less than the bar.
fn events(report: &Report) -> Bar {
    let what = "flow events: none lost at 20,000 connections/s";
    let bar = "0 lost";
    let fastest = report
        .load
        .iter()
        .max_by(|one, other| one.rate.total_cmp(&other.rate));
    let Some(load) = fastest else {
        return missing(what, bar, "not measured");
    };
    let reached = load.rate >= 20_000.0;
    Bar {
        what,
        wanted: bar,
        measured: format!(
            "{} lost at {:.0}/s, the most this machine makes",
            load.lost, load.rate
        ),
        met: (reached || load.lost > 0).then_some(load.lost == 0),
    }
}

fn memory(report: &Report) -> Bar {
    let what = "agent resident, 10,000 identities";
    let bar = "< 64 MiB";
    let most = report
        .load
        .iter()
        .filter(|load| load.policy == MANY.name())
        .map(|load| load.resident_kib)
        .max();
    most.map_or_else(
        || missing(what, bar, "not measured"),
        |kib| Bar {
            what,
            wanted: bar,
            measured: format!("{} MiB", kib.div_ceil(1_024)),
            met: Some(kib < 64 * 1_024),
        },
    )
}

fn missing(what: &'static str, bar: &'static str, why: &str) -> Bar {
    Bar {
        what,
        wanted: bar,
        measured: why.to_owned(),
        met: None,
    }
}

impl Bar {
    /// For the last column.
    pub const fn verdict(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "open",
        }
    }
}
