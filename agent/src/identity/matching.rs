//! Selectors: what a workload asks of cgroup and process, and which workloads a cgroup may hold.
//!
//! A `cgroup` glob covers the cgroup it matches and everything below. systemd puts a unit into the
//! cgroup of its slices: `/a.slice/a-b.slice/c.service`. So slices are the leading components that
//! end in `.slice`, and the unit is the first component after them, as `cg_path_get_unit` of systemd
//! reads a path. What lies below a unit is delegated: its names are chosen by whoever runs there and
//! are never taken for units or slices of the host.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::Path,
};

use globset::{Candidate, Glob, GlobSet};
use ringfence_common::abi::{
    Identity,
    executable::{ANY_UID, NO_GID},
};
use ringfence_policy::model::{Identities, Selector, Workload};

use super::{
    IdentityError,
    below::{Ahead, Below},
    containers::ContainerFacts,
    specificity::{Condition, Place},
};

/// A workload as matching needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    /// Name.
    pub name: String,
    /// Identity.
    pub identity: Identity,
    /// What the process must be; empty for workloads told apart by cgroup alone.
    pub condition: Condition,
    /// Patterns of cgroup paths.
    pub globs: Vec<Glob>,
    /// systemd units.
    pub units: Vec<String>,
    /// systemd slices.
    pub slices: Vec<String>,
    /// What the runtime must say of the container.
    pub container: ContainerFacts,
}

impl Spec {
    /// Reads the selectors. `user` and `group` resolve names; a name they don't know leaves the workload
    /// without any user, so that it matches nobody.
    pub fn new(
        workload: &Workload,
        identities: &Identities,
        user: impl Fn(&str) -> Option<u32>,
        group: impl Fn(&str) -> Option<u32>,
    ) -> Result<Self, IdentityError> {
        let identity = identities.get(&workload.name).copied();
        let mut spec = Self {
            name: workload.name.clone(),
            identity: identity.ok_or_else(|| IdentityError::NoIdentity(workload.name.clone()))?,
            condition: Condition::default(),
            globs: Vec::new(),
            units: Vec::new(),
            slices: Vec::new(),
            container: ContainerFacts::new(),
        };
        for selector in &workload.selectors {
            match selector {
                Selector::Cgroup(matcher) => spec.globs.push(matcher.glob().clone()),
                Selector::SystemdUnit(unit) => spec.units.push(unit.clone()),
                Selector::SystemdSlice(slice) => spec.slices.push(slice.clone()),
                Selector::Exe(path) => {
                    let _ = spec.condition.paths.insert(path.clone());
                }
                Selector::Sha256(digest) => {
                    let _ = spec.condition.digests.insert(*digest);
                }
                Selector::Container { key, value } => {
                    let _ = spec.container.insert(key.clone(), value.clone());
                }
                Selector::Uid(uid) => spec.only(Some(*uid)),
                Selector::User(name) => {
                    let uid = user(name);
                    if uid.is_none() {
                        tracing::warn!(
                            workload = spec.name,
                            user = name,
                            "unknown user: the workload matches nobody"
                        );
                    }
                    spec.only(uid);
                }
                Selector::Gid(gid) => spec.within(Some(*gid)),
                Selector::Group(name) => {
                    let gid = group(name);
                    if gid.is_none() {
                        tracing::warn!(
                            workload = spec.name,
                            group = name,
                            "unknown group: the workload matches nobody"
                        );
                    }
                    spec.within(gid);
                }
            }
        }
        Ok(spec)
    }

    /// Whether it has no cgroup-like selector, so that every cgroup may hold it.
    pub fn is_everywhere(&self) -> bool {
        self.places() == 0
    }

    /// Whether there is a process that it can match, as far as users and groups go.
    pub fn is_possible(&self) -> bool {
        self.condition
            .users
            .as_ref()
            .is_none_or(|users| !users.is_empty())
    }

    /// Selectors that look at the cgroup, or at the container that it belongs to.
    fn places(&self) -> usize {
        self.globs.len() + self.units.len() + self.slices.len() + self.container.len()
    }

    fn within(&mut self, gid: Option<u32>) {
        match gid.filter(|gid| *gid != NO_GID) {
            Some(gid) => {
                let _ = self.condition.groups.insert(gid);
            }
            None => self.only(None),
        }
    }

    fn only(&mut self, uid: Option<u32>) {
        let asked: BTreeSet<u32> = uid.filter(|uid| *uid != ANY_UID).into_iter().collect();
        let users = self.condition.users.take();
        self.condition.users = Some(match users {
            Some(users) => users.intersection(&asked).copied().collect(),
            None => asked,
        });
    }
}

/// Workloads that a cgroup may hold, by number, each with the place at which it matched.
pub(super) type Candidates = Vec<(usize, Place)>;

/// The cgroup-like selectors of all workloads, ready to be matched together.
pub(super) struct Matcher {
    globs: GlobSet,
    /// Per glob: the workload it belongs to and what it spells out.
    owners: Vec<(usize, Place)>,
    units: HashMap<String, Vec<usize>>,
    slices: HashMap<String, Vec<usize>>,
    /// By key, then by value.
    containers: HashMap<String, HashMap<String, Vec<usize>>>,
    needed: Vec<usize>,
    ahead: Ahead,
}

impl Matcher {
    /// Compiles the selectors.
    pub fn new(specs: &[Spec]) -> Result<Self, IdentityError> {
        let mut globs = GlobSet::builder();
        let mut owners = Vec::new();
        let mut units: HashMap<String, Vec<usize>> = HashMap::new();
        let mut slices: HashMap<String, Vec<usize>> = HashMap::new();
        let mut containers: HashMap<String, HashMap<String, Vec<usize>>> = HashMap::new();
        for (workload, spec) in specs.iter().enumerate() {
            for glob in &spec.globs {
                let _ = globs.add(glob.clone());
                owners.push((workload, Place::of_glob(glob.glob())));
            }
            for unit in &spec.units {
                units.entry(unit.clone()).or_default().push(workload);
            }
            for slice in &spec.slices {
                slices.entry(slice.clone()).or_default().push(workload);
            }
            for (key, value) in &spec.container {
                let values = containers.entry(key.clone()).or_default();
                values.entry(value.clone()).or_default().push(workload);
            }
        }
        Ok(Self {
            globs: globs.build().map_err(IdentityError::Patterns)?,
            owners,
            units,
            slices,
            containers,
            needed: specs.iter().map(Spec::places).collect(),
            ahead: Ahead::new(specs),
        })
    }

    /// Whether some workload asks what a container runtime says.
    pub fn asks_containers(&self) -> bool {
        !self.containers.is_empty()
    }

    /// What cgroups below a path may be that the path itself is not.
    pub fn below(&self, path: &Path) -> Below {
        let covered = prefixes(path)
            .flat_map(|prefix| self.globs.matches_candidate(&Candidate::from_bytes(prefix)))
            .collect();
        self.ahead.below(path, &covered)
    }

    /// Workloads whose cgroup-like selectors all match a path below the guarded root and the container
    /// that it belongs to, in order. Without those that have none: see [`Spec::is_everywhere`].
    pub fn candidates(&self, path: &Path, container: Option<&ContainerFacts>) -> Candidates {
        let mut hits: BTreeMap<usize, (usize, Place)> = BTreeMap::new();
        let mut hit = |workload: usize, place: Place| {
            let (count, sum) = hits.entry(workload).or_default();
            *count += 1;
            *sum = sum.and(place);
        };
        self.match_globs(path, &mut hit);
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
    fn match_globs(&self, path: &Path, hit: &mut impl FnMut(usize, Place)) {
        let mut seen = BTreeSet::new();
        for (depth, prefix) in (0u32..).zip(prefixes(path)) {
            for glob in self.globs.matches_candidate(&Candidate::from_bytes(prefix)) {
                if seen.insert(glob)
                    && let Some((workload, place)) = self.owners.get(glob)
                {
                    hit(*workload, Place { depth, ..*place });
                }
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
        let bytes = path.as_os_str().as_bytes();
        let parts = bytes.split(|b| *b == b'/').filter(|part| !part.is_empty());
        let mut seen = BTreeSet::new();
        for (depth, part) in (1u32..).zip(parts) {
            let slice = part.ends_with(b".slice");
            if !seen.insert(part) {
                continue;
            }
            let (named, place) = if slice {
                (
                    &self.slices,
                    Place {
                        depth,
                        literal: 1,
                        slices: 1,
                        ..Place::default()
                    },
                )
            } else {
                (
                    &self.units,
                    Place {
                        depth,
                        literal: 1,
                        units: 1,
                        ..Place::default()
                    },
                )
            };
            // systemd escapes a name that could be taken for a file of the kernel with `_`.
            let name = part.strip_prefix(b"_").unwrap_or(part);
            let name = OsStr::from_bytes(name).to_str();
            for workload in name.and_then(|name| named.get(name)).into_iter().flatten() {
                hit(*workload, place);
            }
            if !slice {
                return;
            }
        }
    }
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
