//! Whether the cost of a connection grows with what there is: entries, identities, prefixes, connections, cgroups.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::{
    paired::{Effort, turns},
    policies, process,
    scenario::Scenario,
    stage::{Family, Stage, Way},
    stats::{Spread, float},
    variant::{TEN, Variant},
    worker::CROWD,
};

/// The cost of a connection against one quantity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Series {
    pub axis: String,
    pub points: Vec<Point>,
}

/// A quantity, and microseconds for a connection, request, response and close over loopback.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    pub quantity: f64,
    pub micros: Spread,
}

impl Series {
    /// For people.
    pub fn title(&self) -> String {
        format!("Cost of a connection against {}", self.axis)
    }

    /// Name of its plot.
    pub fn file(&self) -> String {
        format!("flat-{}.svg", self.axis)
    }
}

/// Name, quantities, and what has one of them.
type Axis = (&'static str, &'static [u32], fn(u32) -> Stage);

const ENTRIES: &[u32] = &[10, 100, 1_000, 10_000, 100_000];
const IDENTITIES: &[u32] = &[1, 10, 100, 1_000, 10_000];
const PREFIXES: &[u32] = &[1, 10, 100, 1_000, 10_000, 100_000];
const CONNECTIONS: &[u32] = &[1, 10, 100, 1_000, 10_000];
const CGROUPS: &[u32] = &[1, 10, 100, 1_000, 10_000];

/// All of them; where it is `quick`, the ends of each.
pub fn measure(effort: Effort, quick: bool) -> Vec<Series> {
    let axes: [Axis; 5] = [
        ("entries", ENTRIES, |number| {
            of_policy(
                "entries",
                number,
                &policies::allow(number, number.div_ceil(10_000)),
            )
        }),
        ("identities", IDENTITIES, |number| {
            of_policy(
                "identities",
                number,
                &policies::allow(10_000.max(number), number),
            )
        }),
        ("prefixes", PREFIXES, |number| {
            of_policy("prefixes", number, &policies::with_cidrs(number))
        }),
        ("connections", CONNECTIONS, |number| {
            let mut stage = of_policy("connections", number, &policies::allow(10, 1));
            let address = Way::Veth.address(Family::V4, CROWD);
            let _held = stage
                .client(Way::Veth)
                .ask(&format!("idle {address} 0 {number}"));
            stage
        }),
        ("cgroups", CGROUPS, with_cgroups),
    ];
    axes.into_iter()
        .map(|(axis, quantities, stage)| {
            let ends = [quantities.first(), quantities.last()];
            let ends: Vec<u32> = ends.into_iter().flatten().copied().collect();
            let quantities = if quick { &ends } else { quantities };
            series(axis, quantities, stage, effort)
        })
        .collect()
}

fn series(axis: &str, quantities: &[u32], stage: fn(u32) -> Stage, effort: Effort) -> Series {
    let mut stages: Vec<_> = quantities
        .iter()
        .map(|number| {
            process::check();
            (float((*number).into()), stage(*number), Vec::new())
        })
        .collect();
    let number = stages.len();
    for round in 0..=effort.rounds {
        for which in turns(round, number) {
            let Some((_, stage, samples)) = stages.get_mut(which) else {
                continue;
            };
            let sample = Scenario::Crr.sample(stage, Way::Loopback, Family::V4, effort.millis);
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    let point = |(quantity, _, samples): &(f64, Stage, Vec<f64>)| Point {
        quantity: *quantity,
        micros: Spread::of(samples),
    };
    Series {
        axis: axis.to_owned(),
        points: stages.iter().map(point).collect(),
    }
}

fn of_policy(axis: &str, number: u32, policy: &str) -> Stage {
    Stage::with(
        variant(number),
        &format!("flat-{axis}-{number}"),
        Some(policy),
    )
}

const fn variant(number: u32) -> Variant {
    Variant::Entries(number, 1)
}

/// With that many cgroups beside the two that talk, known to the agent before the first call.
fn with_cgroups(number: u32) -> Stage {
    let mut stage = Stage::with(TEN, &format!("flat-cgroups-{number}"), None);
    let parent = stage.sandbox.cgroup("more");
    for cgroup in 0..number {
        fs::create_dir(parent.join(cgroup.to_string())).unwrap();
    }
    stage.enforce(&policies::allow(10, 1));
    stage
}
