//! What users make more of than is kept.

use super::Metrics;

/// What was too much to keep, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Executables that were forgotten for others.
    pub executables: u64,
    /// Cgroups that are not followed.
    pub cgroups: u64,
    /// Network namespaces of which local addresses are not listed.
    pub addresses: u64,
}

impl Metrics {
    /// So much was left out since the start.
    pub fn left_out(&self, left_out: LeftOut) {
        for (what, total) in [
            ("executable", left_out.executables),
            ("cgroup", left_out.cgroups),
            ("address", left_out.addresses),
        ] {
            let counter = self.left_out.with_label_values(&[what]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }
}
