//! Workloads by label, so that a selector costs what it selects and not the number of workloads.

use std::collections::{BTreeMap, HashMap};

use super::Workload;

/// Positions of workloads by label.
pub(crate) struct LabelIndex<'a> {
    workloads: &'a [Workload],
    by_label: HashMap<&'a str, HashMap<&'a str, Vec<usize>>>,
}

impl<'a> LabelIndex<'a> {
    pub(crate) fn new(workloads: &'a [Workload]) -> Self {
        let mut by_label = HashMap::<_, HashMap<_, Vec<usize>>>::new();
        for (position, workload) in workloads.iter().enumerate() {
            for (key, value) in &workload.labels {
                by_label
                    .entry(key.as_str())
                    .or_default()
                    .entry(value.as_str())
                    .or_default()
                    .push(position);
            }
        }
        Self {
            workloads,
            by_label,
        }
    }

    /// Positions of the workloads that carry all of these labels.
    pub(crate) fn select(&self, labels: &BTreeMap<String, String>) -> Vec<usize> {
        let carriers = labels.iter().map(|(key, value)| self.carriers(key, value));
        let Some(fewest) = carriers.min_by_key(|list| list.len()) else {
            return Vec::new();
        };
        let carries_all = |&position: &usize| {
            self.workloads.get(position).is_some_and(|workload| {
                labels
                    .iter()
                    .all(|(key, value)| workload.labels.get(key) == Some(value))
            })
        };
        fewest.iter().copied().filter(carries_all).collect()
    }

    fn carriers(&self, key: &str, value: &str) -> &[usize] {
        let values = self.by_label.get(key);
        values
            .and_then(|values| values.get(value))
            .map_or(&[], Vec::as_slice)
    }
}
