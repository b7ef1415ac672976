//! Workloads by label, so that a selector costs what it selects and not the number of workloads.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    ops::Deref,
    sync::{Arc, OnceLock},
};

use super::Workload;

/// Workloads ordered by name. Copies share everything.
#[derive(Clone, Default)]
pub struct Workloads(Arc<Inner>);

#[derive(Default)]
struct Inner {
    list: Vec<Arc<Workload>>,
    /// Hashes of labels, each with the position of a workload that carries it; in order.
    by_label: OnceLock<Vec<(u64, u32)>>,
}

impl Workloads {
    /// Whether both are the same ones, unchanged since the other was made of one.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Position of the workload of this name.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.binary_search_by(|workload| workload.name.as_str().cmp(name))
            .ok()
    }

    /// Positions of the workloads that carry all of these labels, in order.
    pub(crate) fn select(&self, labels: &BTreeMap<String, String>) -> Vec<usize> {
        let carriers = labels.iter().map(|(key, value)| self.carriers(key, value));
        let Some(fewest) = carriers.min_by_key(|list| list.len()) else {
            return Vec::new();
        };
        let positions = fewest
            .iter()
            .filter_map(|(_, at)| usize::try_from(*at).ok());
        positions
            .filter(|at| {
                self.get(*at)
                    .is_some_and(|workload| carries(workload, labels))
            })
            .collect()
    }

    /// Workloads that carry a label, and with luck no others.
    fn carriers(&self, key: &str, value: &str) -> &[(u64, u32)] {
        let by_label = self.0.by_label.get_or_init(|| {
            let of_one = |(at, workload): (u32, &Arc<Workload>)| {
                let labels = workload.labels.iter();
                let hashes = labels.map(move |(key, value)| (hash(key, value), at));
                hashes.collect::<Vec<_>>()
            };
            let mut all: Vec<_> = (0..).zip(self.iter()).flat_map(of_one).collect();
            all.sort_unstable();
            all
        });
        let sought = hash(key, value);
        let from = by_label.partition_point(|(hash, _)| *hash < sought);
        let rest = by_label.get(from..).unwrap_or_default();
        let number = rest.partition_point(|(hash, _)| *hash == sought);
        rest.get(..number).unwrap_or_default()
    }
}

/// Whether a workload carries all of these labels.
pub(crate) fn carries(workload: &Workload, labels: &BTreeMap<String, String>) -> bool {
    labels
        .iter()
        .all(|(key, value)| workload.labels.get(key) == Some(value))
}

fn hash(key: &str, value: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, value).hash(&mut hasher);
    hasher.finish()
}

impl FromIterator<Arc<Workload>> for Workloads {
    fn from_iter<T: IntoIterator<Item = Arc<Workload>>>(list: T) -> Self {
        list.into_iter().collect::<Vec<_>>().into()
    }
}

/// They must be ordered by name.
impl From<Vec<Arc<Workload>>> for Workloads {
    fn from(list: Vec<Arc<Workload>>) -> Self {
        Self(Arc::new(Inner {
            list,
            by_label: OnceLock::new(),
        }))
    }
}

impl Deref for Workloads {
    type Target = [Arc<Workload>];

    fn deref(&self) -> &Self::Target {
        &self.0.list
    }
}

impl<'w> IntoIterator for &'w Workloads {
    type Item = &'w Arc<Workload>;
    type IntoIter = std::slice::Iter<'w, Arc<Workload>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Workloads {
    fn eq(&self, other: &Self) -> bool {
        self.is(other) || **self == **other
    }
}

impl Eq for Workloads {}

impl std::fmt::Debug for Workloads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
