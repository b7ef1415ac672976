//! Prometheus metrics: what they are called and how they are served.
//!
//! Kernel counters are read when somebody scrapes, not kept twice. Labels take values from fixed tables
//! only, so that their number is bounded whatever the traffic.

mod answers;
mod left_out;
mod serve;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use prometheus::{
    Encoder as _, Error, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
    core::Collector,
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};
use ringfence_common::abi::{Count, Direction, Reason, Verdict, reason};

use crate::flow::{Counters, Event};

pub use answers::Answers;
pub use left_out::LeftOut;
pub use serve::serve;

/// Directions by name.
const DIRECTIONS: [(Direction, &str); 3] = [
    (Direction::Egress, "egress"),
    (Direction::Ingress, "ingress"),
    (Direction::Listen, "listen"),
];

/// Counters of what is no failure: slower ways that packets took.
const DETOURS: [Count; 3] = [Count::AncestorWalk, Count::Pending, Count::Rejudged];

/// Counters of what became of records.
const RECORDS: [(&str, Count); 3] = [
    ("sent", Count::EventSent),
    ("lost", Count::EventLost),
    ("folded", Count::RefusalFolded),
];

/// Counters of what is no failure either, and is shown elsewhere.
const ELSEWHERE: [Count; 1] = [Count::AnswerSuppressed];

/// The kernel's counters at one moment, summed over CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelCounts {
    /// By [`Count`].
    pub counts: Vec<u64>,
    /// By [`reason::slot`].
    pub reasons: Vec<u64>,
}

/// The agent's own metrics. Cheap to clone; every clone updates the same ones.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    flows: Arc<Counters>,
    policy_generation: IntGauge,
    policy_apply: Histogram,
    policy_refused: IntCounter,
    newest_policy_refused: IntGauge,
    policy_change_pending: IntGauge,
    policy_rolled_back: IntCounter,
    workloads: IntGauge,
    controller_connected: IntGauge,
    hooks_reattached: IntCounter,
    pins_restored: IntCounter,
    left_out: IntCounterVec,
    questions_dropped: IntCounterVec,
    answers: Answers,
}

impl Metrics {
    /// All metrics at zero.
    ///
    /// # Errors
    /// A name is used twice or not valid: a mistake in this file.
    pub fn new(flows: Arc<Counters>) -> Result<Self, Error> {
        let metrics = Self {
            registry: Registry::new(),
            flows,
            policy_generation: IntGauge::new(
                "ringfence_policy_generation",
                "Generation of the policy in force.",
            )?,
            policy_apply: Histogram::with_opts(
                HistogramOpts::new(
                    "ringfence_policy_apply_seconds",
                    "Time to bring a policy into the kernel.",
                )
                .buckets(vec![0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]),
            )?,
            policy_refused: IntCounter::new(
                "ringfence_policy_refused_total",
                "Policies that were not valid and so not applied.",
            )?,
            newest_policy_refused: IntGauge::new(
                "ringfence_newest_policy_refused",
                "1 while the newest policy is refused and an earlier one is in force.",
            )?,
            policy_change_pending: IntGauge::new(
                "ringfence_policy_change_pending",
                "1 while a change of policy waits to be confirmed.",
            )?,
            policy_rolled_back: IntCounter::new(
                "ringfence_policy_rolled_back_total",
                "Changes of policy that were rolled back because nobody confirmed them.",
            )?,
            workloads: IntGauge::new("ringfence_workloads", "Workloads of the policy in force.")?,
            controller_connected: IntGauge::new(
                "ringfence_controller_connected",
                "1 while the stream to the controller is open.",
            )?,
            hooks_reattached: IntCounter::new(
                "ringfence_hooks_reattached_total",
                "Hooks that someone else had detached.",
            )?,
            pins_restored: IntCounter::new(
                "ringfence_pins_restored_total",
                "Pins of hooks and maps that someone else had removed.",
            )?,
            left_out: IntCounterVec::new(
                Opts::new(
                    "ringfence_left_out_total",
                    "Executables, cgroups and local addresses that are too many to keep.",
                ),
                &["what"],
            )?,
            questions_dropped: IntCounterVec::new(
                Opts::new(
                    "ringfence_questions_dropped_total",
                    "Questions about executables for which there was no room: of calls that are held, which are asked \
                     again, and hints that a program was started.",
                ),
                &["kind"],
            )?,
            answers: Answers::new()?,
        };
        let build = IntGauge::with_opts(
            Opts::new(
                "ringfence_build_info",
                "Always 1; the labels say what runs.",
            )
            .const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        build.set(1);
        let collectors: [Box<dyn Collector>; 13] = [
            Box::new(metrics.policy_generation.clone()),
            Box::new(metrics.policy_apply.clone()),
            Box::new(metrics.policy_refused.clone()),
            Box::new(metrics.newest_policy_refused.clone()),
            Box::new(metrics.policy_change_pending.clone()),
            Box::new(metrics.policy_rolled_back.clone()),
            Box::new(metrics.workloads.clone()),
            Box::new(metrics.controller_connected.clone()),
            Box::new(metrics.hooks_reattached.clone()),
            Box::new(metrics.pins_restored.clone()),
            Box::new(metrics.left_out.clone()),
            Box::new(metrics.questions_dropped.clone()),
            Box::new(build),
        ];
        for collector in collectors {
            metrics.registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// A policy is in force.
    pub fn policy_applied(&self, generation: u32, workloads: usize, took: Duration) {
        self.policy_generation.set(i64::from(generation));
        self.workloads
            .set(i64::try_from(workloads).unwrap_or(i64::MAX));
        self.policy_apply.observe(took.as_secs_f64());
    }

    /// A policy was refused.
    pub fn policy_refused(&self) {
        self.policy_refused.inc();
    }

    /// The newest policy is refused, or in force.
    pub fn newest_policy_refused(&self, refused: bool) {
        self.newest_policy_refused.set(i64::from(refused));
    }

    /// A change waits to be confirmed, or none does.
    pub fn policy_change_pending(&self, pending: bool) {
        self.policy_change_pending.set(i64::from(pending));
    }

    /// A change was rolled back by itself.
    pub fn policy_rolled_back(&self) {
        self.policy_rolled_back.inc();
    }

    /// The stream to the controller is open, or not.
    pub fn controller_connected(&self, connected: bool) {
        self.controller_connected.set(i64::from(connected));
    }

    /// Others had removed so many hooks and pins; they are back.
    pub fn repaired(&self, hooks: usize, pins: usize) {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        self.hooks_reattached.inc_by(count(hooks));
        self.pins_restored.inc_by(count(pins));
    }

    /// There was no room for a question of this kind.
    pub fn question_dropped(&self, kind: &str) {
        self.questions_dropped.with_label_values(&[kind]).inc();
    }

    /// Counters of answers to refused packets.
    #[must_use]
    pub const fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Everything in the text format of Prometheus.
    fn render(&self, kernel: &KernelCounts) -> Result<Vec<u8>, Error> {
        let mut families = self.registry.gather();
        families.extend([
            decisions(kernel),
            kernel_events(kernel),
            self.failures(kernel),
            detours(kernel),
            self.flow_records(),
            self.answers.family(kernel),
            family(
                "ringfence_flow_records_lost_total",
                "Flow records that the agent lost because it was too slow.",
                MetricType::COUNTER,
                vec![counter(&[], self.flows.queue_full())],
            ),
            family(
                "ringfence_flow_records_evicted_total",
                "Flow records that the log dropped for newer ones.",
                MetricType::COUNTER,
                vec![counter(&[], self.flows.evicted())],
            ),
            family(
                "ringfence_live_flows",
                "Flows that are open.",
                MetricType::GAUGE,
                vec![gauge(self.flows.live())],
            ),
        ]);
        // The encoder refuses a family without a value.
        families.retain(|family| !family.get_metric().is_empty());
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }

    fn failures(&self, kernel: &KernelCounts) -> MetricFamily {
        let in_kernel = Count::ALL
            .iter()
            .filter(|(count, _)| !RECORDS.iter().any(|(_, record)| record == count))
            .filter(|(count, _)| !DETOURS.contains(count) && !ELSEWHERE.contains(count))
            .map(|(count, name)| counter(&[("what", name)], at(&kernel.counts, *count as u32)));
        let live = counter(&[("what", "live-table-full")], self.flows.live_full());
        family(
            "ringfence_failures_total",
            "Failures in the kernel programs and in the agent.",
            MetricType::COUNTER,
            in_kernel.chain([live]).collect(),
        )
    }

    fn flow_records(&self) -> MetricFamily {
        let verdicts = [Verdict::Allow, Verdict::Deny, Verdict::Audit];
        let metrics = Event::ALL.iter().flat_map(|(event, name)| {
            verdicts.into_iter().map(|verdict| {
                let labels = [("event", *name), ("verdict", verdict.name())];
                counter(&labels, self.flows.flows(*event, verdict))
            })
        });
        family(
            "ringfence_flows_total",
            "Flow records by what happened and what was decided.",
            MetricType::COUNTER,
            metrics.collect(),
        )
    }
}

fn decisions(kernel: &KernelCounts) -> MetricFamily {
    let metrics = DIRECTIONS.iter().flat_map(|(direction, name)| {
        Reason::ALL.iter().filter_map(|why| {
            let count = at(&kernel.reasons, reason::slot(*direction as u8, *why as u8));
            let verdict = if why.name().ends_with("-deny") {
                "deny"
            } else {
                "allow"
            };
            let labels = [
                ("direction", *name),
                ("verdict", verdict),
                ("reason", why.name()),
            ];
            (count > 0).then(|| counter(&labels, count))
        })
    });
    family(
        "ringfence_decisions_total",
        "Decisions of the kernel programs; in draft mode a deny is reported and not enforced.",
        MetricType::COUNTER,
        metrics.collect(),
    )
}

fn detours(kernel: &KernelCounts) -> MetricFamily {
    let metrics = Count::ALL
        .iter()
        .filter(|(count, _)| DETOURS.contains(count))
        .map(|(count, name)| counter(&[("what", name)], at(&kernel.counts, *count as u32)));
    family(
        "ringfence_detours_total",
        "Slower ways through the kernel programs; they are in order.",
        MetricType::COUNTER,
        metrics.collect(),
    )
}

fn kernel_events(kernel: &KernelCounts) -> MetricFamily {
    family(
        "ringfence_kernel_events_total",
        "Records that the kernel programs sent, lost because the buffer was full, or folded: refusals of which \
         a workload had the same or too many lately.",
        MetricType::COUNTER,
        RECORDS
            .iter()
            .map(|(kind, count)| counter(&[("kind", kind)], at(&kernel.counts, *count as u32)))
            .collect(),
    )
}

fn at(counts: &[u64], index: u32) -> u64 {
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    counts.get(index).copied().unwrap_or(0)
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus values are f64, exact to 2^53"
)]
fn counter(labels: &[(&str, &str)], value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::default();
    metric.set_counter(counter);
    metric.set_label(
        labels
            .iter()
            .map(|(name, value)| label(name, value))
            .collect(),
    );
    metric
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus values are f64, exact to 2^53"
)]
fn gauge(value: u64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value as f64);
    Metric::from_gauge(gauge)
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}
