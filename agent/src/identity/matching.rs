//! Which workloads a cgroup may hold: their cgroup-like selectors, matched together.
//!
//! A `cgroup` glob covers the cgroup it matches and everything below. Units and slices: [`systemd`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::Arc,
};

use super::{
    IdentityError,
    below::{Ahead, Below},
    containers::ContainerFacts,
    spec::Spec,
    specificity::Place,
    systemd::{self, Managed},
};
use globset::{Candidate, GlobSet};

/// Workloads that a cgroup may hold, by number, each with the place at which it matched.
pub(super) type Candidates = Vec<(usize, Place)>;

/// Patterns that match a path or a cgroup above it, by number, each with the highest level at which it does. Copies
/// share what they have in common.
pub(super) type Covered = Option<Arc<BTreeMap<usize, u32>>>;

/// Workloads by the units and slices of one service manager that they ask for.
#[derive(Default)]
struct Named {
    units: HashMap<String, Vec<usize>>,
    slices: HashMap<String, Vec<usize>>,
}

impl Named {
    fn add(&mut self, workload: usize, units: &[String], slices: &[String]) {
        for unit in units {
            self.units.entry(unit.clone()).or_default().push(workload);
        }
        for slice in slices {
            self.slices.entry(slice.clone()).or_default().push(workload);
        }
    }

    fn hit(&self, managed: &Managed<'_>, hit: &mut impl FnMut(usize, Place)) {
        let mut seen = BTreeSet::new();
        for (depth, name) in &managed.slices {
            let workloads = text(name).and_then(|name| self.slices.get(name));
            let place = Place {
                depth: *depth,
                literal: 1,
                slices: 1,
                ..Place::default()
            };
            for workload in workloads.into_iter().flatten() {
                if seen.insert((name, workload)) {
                    hit(*workload, place);
                }
            }
        }
        let Some((depth, name)) = managed.unit else {
            return;
        };
        let template = text(name).and_then(systemd::template_of);
        for (name, literal) in [(text(name), 1), (template.as_deref(), 0)] {
            let workloads = name.and_then(|name| self.units.get(name));
            let place = Place {
                depth,
                literal,
                partial: 1 - literal,
                units: 1,
                ..Place::default()
            };
            for workload in workloads.into_iter().flatten() {
                hit(*workload, place);
            }
        }
    }
}

/// The cgroup-like selectors of all workloads, ready to be matched together.
pub(super) struct Matcher {
    globs: GlobSet,
    /// Per glob: the workload it belongs to and what it spells out.
    owners: Vec<(usize, Place)>,
    host: Named,
    /// By the user whose manager it is.
    users: HashMap<u32, Named>,
    /// By key, then by value.
    containers: HashMap<String, HashMap<String, Vec<usize>>>,
    needed: Vec<usize>,
    ahead: Ahead,
    #[cfg(test)]
    comparisons: std::sync::atomic::AtomicU64,
}

impl Matcher {
    /// Compiles the selectors.
    pub fn new(specs: &[Spec]) -> Result<Self, IdentityError> {
        let mut globs = GlobSet::builder();
        let mut owners = Vec::new();
        let mut host = Named::default();
        let mut users: HashMap<u32, Named> = HashMap::new();
        let mut containers: HashMap<String, HashMap<String, Vec<usize>>> = HashMap::new();
        for (workload, spec) in specs.iter().enumerate() {
            for glob in &spec.globs {
                let _ = globs.add(glob.clone());
                owners.push((workload, Place::of_glob(glob.glob())));
            }
            host.add(workload, &spec.units, &spec.slices);
            for uid in spec.managers() {
                let named = users.entry(uid).or_default();
                named.add(workload, &spec.user_units, &spec.user_slices);
            }
            for (key, value) in &spec.container {
                let values = containers.entry(key.clone()).or_default();
                values.entry(value.clone()).or_default().push(workload);
            }
        }
        Ok(Self {
            globs: globs.build().map_err(IdentityError::Patterns)?,
            owners,
            host,
            users,
            containers,
            needed: specs.iter().map(Spec::places).collect(),
            ahead: Ahead::new(specs),
            #[cfg(test)]
            comparisons: std::sync::atomic::AtomicU64::default(),
        })
    }

    /// Whether some workload asks what a container runtime says.
    pub fn asks_containers(&self) -> bool {
        !self.containers.is_empty()
    }

    /// Which patterns cover a path at a level, where that is known of the path above.
    pub fn cover(&self, above: &Covered, path: &Path, level: u32) -> Covered {
        self.cover_bytes(above, path.as_os_str().as_bytes(), level)
    }

    /// The same of a path of which nothing is known.
    pub fn covered(&self, path: &Path) -> Covered {
        (0u32..)
            .zip(prefixes(path))
            .fold(None, |above, (level, prefix)| {
                self.cover_bytes(&above, prefix, level)
            })
    }

    fn cover_bytes(&self, above: &Covered, path: &[u8], level: u32) -> Covered {
        #[cfg(test)]
        let _ = self
            .comparisons
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut covered = above.clone();
        for glob in self.globs.matches_candidate(&Candidate::from_bytes(path)) {
            if covered.as_ref().is_none_or(|it| !it.contains_key(&glob)) {
                let covered = Arc::make_mut(covered.get_or_insert_default());
                let _ = covered.insert(glob, level);
            }
        }
        covered
    }

    /// How often a path was compared with all patterns.
    #[cfg(test)]
    pub fn comparisons(&self) -> u64 {
        self.comparisons.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// What cgroups below a path may be that the path itself is not.
    pub fn below(&self, path: &Path, covered: &Covered) -> Below {
        let covered = covered.iter().flat_map(|it| it.keys().copied()).collect();
        self.ahead.below(path, &covered)
    }

    /// Workloads whose cgroup-like selectors all match a path below the guarded root and the container
    /// that it belongs to, in order. Without those that have none: see [`Spec::is_everywhere`].
    pub fn candidates(&self, path: &Path, container: Option<&ContainerFacts>) -> Candidates {
        self.among(&self.covered(path), path, container)
    }

    /// [`Self::candidates`], where it is known which patterns cover the path.
    pub fn among(
        &self,
        covered: &Covered,
        path: &Path,
        container: Option<&ContainerFacts>,
    ) -> Candidates {
        let mut hits: BTreeMap<usize, (usize, Place)> = BTreeMap::new();
        let mut hit = |workload: usize, place: Place| {
            let (count, sum) = hits.entry(workload).or_default();
            *count += 1;
            *sum = sum.and(place);
        };
        self.match_globs(covered, &mut hit);
        self.match_systemd(path, &mut hit);
        self.match_container(container, &mut hit);
        let matched = hits.into_iter().filter(|(workload, (count, _))| {
            self.needed
                .get(*workload)
                .is_some_and(|needed| needed == count)
        });
        matched
            .map(|(workload, (_, place))| (workload, place))
            .collect()
    }

    /// Each glob counts once, at the highest cgroup on the path that it matches.
    fn match_globs(&self, covered: &Covered, hit: &mut impl FnMut(usize, Place)) {
        for (glob, depth) in covered.iter().flat_map(|it| it.iter()) {
            if let Some((workload, place)) = self.owners.get(*glob) {
                hit(
                    *workload,
                    Place {
                        depth: *depth,
                        ..*place
                    },
                );
            }
        }
    }

    fn match_container(
        &self,
        container: Option<&ContainerFacts>,
        hit: &mut impl FnMut(usize, Place),
    ) {
        let place = Place {
            container: 1,
            ..Place::default()
        };
        for (key, value) in container.into_iter().flatten() {
            let values = self.containers.get(key);
            for workload in values
                .and_then(|values| values.get(value))
                .into_iter()
                .flatten()
            {
                hit(*workload, place);
            }
        }
    }

    fn match_systemd(&self, path: &Path, hit: &mut impl FnMut(usize, Place)) {
        let units = systemd::units(path);
        self.host.hit(&units.host, hit);
        if let Some((uid, managed)) = &units.user
            && let Some(named) = self.users.get(uid)
        {
            named.hit(managed, hit);
        }
    }
}

fn text(name: &[u8]) -> Option<&str> {
    std::str::from_utf8(name).ok()
}

/// `/`, `/a`, `/a/b` … of `/a/b/…`.
fn prefixes(path: &Path) -> impl Iterator<Item = &[u8]> {
    let bytes = path.as_os_str().as_bytes();
    let ends = bytes.iter().enumerate().skip(1);
    let ends = ends.filter(|(_, b)| **b == b'/').map(|(at, _)| at);
    let whole = (bytes.len() > 1).then_some(bytes.len());
    std::iter::once(1)
        .chain(ends)
        .chain(whole)
        .filter_map(|end| bytes.get(..end))
}
