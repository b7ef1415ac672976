//! A workload as matching needs it: its selectors, by kind.

use std::collections::BTreeSet;

use globset::Glob;
use ringfence_common::abi::{
    Identity,
    executable::{ANY_UID, NO_GID},
};
use ringfence_policy::model::{Identities, Selector, Workload};

use super::{IdentityError, containers::ContainerFacts, specificity::Condition};

/// A workload's selectors.
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
    /// Units of the service manager of the user in the condition.
    pub user_units: Vec<String>,
    /// Slices of that manager.
    pub user_slices: Vec<String>,
    /// What the runtime must say of the container.
    pub container: ContainerFacts,
    /// Selectors of users and groups that this host does not know, as they are shown: nobody matches.
    pub unknown: Vec<String>,
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
            user_units: Vec::new(),
            user_slices: Vec::new(),
            container: ContainerFacts::new(),
            unknown: Vec::new(),
        };
        for selector in &workload.selectors {
            match selector {
                Selector::Cgroup(glob) => spec.globs.push(glob.clone()),
                Selector::SystemdUnit(unit) => spec.units.push(unit.clone()),
                Selector::SystemdSlice(slice) => spec.slices.push(slice.clone()),
                Selector::SystemdUserUnit(unit) => spec.user_units.push(unit.clone()),
                Selector::SystemdUserSlice(slice) => spec.user_slices.push(slice.clone()),
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
                        spec.unknown.push(selector.to_string());
                    }
                    spec.only(uid);
                }
                Selector::Gid(gid) => spec.within(Some(*gid)),
                Selector::Group(name) => {
                    let gid = group(name);
                    if gid.is_none() {
                        spec.unknown.push(selector.to_string());
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

    /// Users whose service managers it asks for.
    pub fn managers(&self) -> impl Iterator<Item = u32> {
        let asks = !self.user_units.is_empty() || !self.user_slices.is_empty();
        let users = self.condition.users.iter().filter(move |_| asks);
        users.flatten().copied()
    }

    /// Selectors that look at the cgroup, or at the container that it belongs to.
    pub fn places(&self) -> usize {
        let host = self.units.len() + self.slices.len();
        let user = self.user_units.len() + self.user_slices.len();
        self.globs.len() + host + user + self.container.len()
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
