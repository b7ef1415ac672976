//! What became of refused packets that could be answered.

use prometheus::proto::{MetricFamily, MetricType};
use ringfence_common::abi::Count;

use super::{KernelCounts, at, counter, family};

/// Counters of the task that answers. Cheap to clone; every clone updates the same ones.
#[derive(Clone)]
pub struct Answers {
    sent: prometheus::IntCounter,
    suppressed: prometheus::IntCounter,
    failed: prometheus::IntCounter,
}

impl Answers {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        // They are shown together with what the kernel programs count.
        let one = |name| prometheus::IntCounter::new(name, "Shown by result.");
        Ok(Self {
            sent: one("sent")?,
            suppressed: one("suppressed")?,
            failed: one("failed")?,
        })
    }

    /// An answer was sent.
    pub fn sent(&self) {
        self.sent.inc();
    }

    /// One was not, because as many as may be were, or because it would have come late.
    pub fn suppressed(&self) {
        self.suppressed.inc();
    }

    /// One could not be sent.
    pub fn failed(&self) {
        self.failed.inc();
    }

    /// Every counter with its name in the status; `suppressed_in_kernel` is what the programs have counted.
    #[must_use]
    pub fn all(&self, suppressed_in_kernel: u64) -> [(&'static str, u64); 3] {
        [
            ("answer-sent", self.sent.get()),
            (
                "answer-suppressed",
                self.suppressed.get() + suppressed_in_kernel,
            ),
            ("answer-failed", self.failed.get()),
        ]
    }

    pub(super) fn family(&self, kernel: &KernelCounts) -> MetricFamily {
        let all = self.all(at(&kernel.counts, Count::AnswerSuppressed as u32));
        let result = |name: &'static str| name.trim_start_matches("answer-");
        family(
            "ringfence_refusal_answers_total",
            "Answers to refused packets of remote clients: sent, suppressed because there were as many as may be, \
             failed because the packet could not be sent.",
            MetricType::COUNTER,
            all.iter()
                .map(|(name, value)| counter(&[("result", result(name))], *value))
                .collect(),
        )
    }
}
