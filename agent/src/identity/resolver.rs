//! The single owner of everything about identity, driven by one task.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use ringfence_common::abi::{
    ExecutableKey, Identity, Owner,
    executable::{GROUPED, MEMBER},
    identity::{AGENT, PENDING, UNKNOWN},
};
use ringfence_policy::model::{Identities, Selector, Workloads};
use tokio::sync::Notify;

use super::{
    Asker, ContainerAnswer, ContainerFacts, ContainerQuestion, IdentityError, OnTie, Tie,
    containers::Containers,
    executables::{Executables, Forgotten, MOST_KNOWN},
    groups::{Crowd, Groups},
    inventory::{Inventory, Keeper},
    names::{group, user},
    placement::{Placement, specs},
    root,
    tables::Tables,
    tree::Tree,
    watch::Watcher,
};

mod foresee;

pub use foresee::Foreseen;

/// How often to rescan while not everything can be watched.
const RESCAN: Duration = Duration::from_secs(1);
/// Names of cgroups that [`Resolver::process_events`] looks at before it lets others have their turn.
const MOST_NAMES: usize = 1_024;

/// Keeps [`Tables`] true to the cgroup tree, the executables and the workloads.
pub struct Resolver {
    root: PathBuf,
    watcher: Watcher,
    tree: Tree,
    containers: Containers,
    placement: Placement,
    /// What `placement` follows from, where it follows from nothing else.
    placed: Option<(Workloads, Arc<Identities>)>,
    executables: Executables,
    tables: Tables,
    keeper: Keeper,
    /// There may be more events to read.
    unread: bool,
}

impl Resolver {
    /// Walks and watches the cgroups below a directory; without workloads everything is `HOST`.
    ///
    /// # Errors
    /// The directory isn't on cgroup v2 or can't be read, or inotify can't be used.
    pub fn new(root: PathBuf) -> Result<Self, IdentityError> {
        root::check(&root)?;
        let watcher = Watcher::new()?;
        let mut resolver = Self {
            tree: Tree::new(&root, &watcher)?,
            watcher,
            root,
            containers: Containers::default(),
            placement: Placement::new(Vec::new())?,
            placed: None,
            executables: Executables::new(MOST_KNOWN),
            tables: Tables::default(),
            keeper: Keeper::default(),
            unread: false,
        };
        resolver.look_for_containers();
        resolver.build();
        Ok(resolver)
    }

    /// Replaces the workloads. Names of users and groups are resolved now.
    ///
    /// # Errors
    /// Two workloads are equally specific for some process and `on_tie` refuses that (not where they
    /// ask for different groups), a cgroup would have too many groups, or a workload has no identity. The previous workloads stay in force.
    pub fn set_workloads(
        &mut self,
        workloads: &Workloads,
        identities: &Arc<Identities>,
        on_tie: OnTie,
    ) -> Result<(), IdentityError> {
        let placed = self.placed.as_ref().is_some_and(|(before, numbers)| {
            before.is(workloads) && Arc::ptr_eq(numbers, identities)
        });
        if placed {
            return Ok(());
        }
        let specs = specs(workloads, identities, user, group)?;
        // Names may stand for someone else by the next time.
        let asks = |selector: &Selector| matches!(selector, Selector::User(_) | Selector::Group(_));
        let mut selectors = workloads.iter().flat_map(|it| &it.selectors);
        let placed = (!selectors.any(asks)).then(|| (workloads.clone(), Arc::clone(identities)));
        if specs == self.placement.specs() {
            self.placed = placed;
            return Ok(());
        }
        let mut placement = Placement::new(specs)?;
        let mut executables = self.executables.with_specs(placement.specs());
        executables.watch(&self.watcher);
        let _ = executables.refresh();
        let tables = Tables::build(&self.tree, &self.containers, &mut placement, &executables);
        let tie = placement.ties().find(|tie| !tie.by_group);
        let crowd = placement.crowd().cloned().map(IdentityError::Groups);
        let fault = tie.cloned().map(IdentityError::Tie).or(crowd);
        if let Some(fault) = fault.filter(|_| on_tie == OnTie::Refuse) {
            self.executables.inherit_watches(executables);
            self.executables.watch(&self.watcher);
            let _ = self.refresh_executables();
            return Err(fault);
        }
        self.executables = executables;
        self.placement = placement;
        self.placed = placed;
        self.tables = tables;
        self.keeper = Keeper::new(&self.tree, &self.containers, &self.placement);
        Ok(())
    }

    /// Takes in what inotify reports, without waiting; returns whether the tables changed. Call it
    /// when [`AsFd::as_fd`] is readable, and as long as [`Self::is_behind`] says so: one call takes in a
    /// bounded number of names. Nothing more is read before it is done with what it has read, so that what waits is
    /// bounded by the kernel's queue.
    pub fn process_events(&mut self) -> bool {
        let mut updated = false;
        if self.tree.is_behind() {
            // What made the caller call may be there to be read.
            self.unread = true;
        } else {
            let batch = self.watcher.drain();
            self.unread = batch.more;
            let concerns = self.executables.concerns(&batch);
            let overflow = batch.overflow;
            self.tree.take(batch);
            if overflow {
                tracing::warn!("inotify queue overflowed: rescanning");
                return self.rescan();
            }
            if concerns {
                self.executables.watch(&self.watcher);
                updated |= self.refresh_executables();
            }
        }
        let changed = self.tree.work(&self.watcher, MOST_NAMES);
        self.update_cgroups(&changed) || updated
    }

    /// Whether [`Self::process_events`] has left something for the next call.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.unread || self.tree.is_behind()
    }

    /// Looks at everything again; returns whether the tables changed.
    pub fn rescan(&mut self) -> bool {
        let _ = self.tree.rescan(&self.watcher);
        self.executables.watch(&self.watcher);
        let _ = self.executables.refresh();
        self.look_for_containers();
        let before = std::mem::take(&mut self.tables);
        self.build();
        self.tables != before
    }

    /// How often [`Self::rescan`] must be called, where not everything can be watched.
    #[must_use]
    pub fn rescan_interval(&self) -> Option<Duration> {
        self.tree.is_incomplete().then_some(RESCAN)
    }

    /// Looks at the paths again that selectors name, and judges an executable that the kernel saw a process run, as
    /// [`Self::judge`].
    pub fn seen(&mut self, key: ExecutableKey, tgid: u32, asker: Asker) -> Option<u32> {
        if !self.is_judged(&key) {
            self.look_at_paths();
        }
        self.judge(key, tgid, asker)
    }

    /// Whether an executable needs no judgement.
    #[must_use]
    pub fn is_judged(&self, key: &ExecutableKey) -> bool {
        *key == ExecutableKey::FOREIGN || self.tables.executables.contains_key(key)
    }

    /// Takes in where the paths that selectors name lead to now. The tables may have changed.
    pub fn look_at_paths(&mut self) {
        let _ = self.refresh_executables();
    }

    /// Judges an executable that the kernel saw a process run, before the last [`Self::look_at_paths`]; returns its
    /// class. `None`: it can't be judged (the process is gone or runs something else now) and stays pending. The tables
    /// may have changed. What must be read for it is read on the account of `asker`.
    pub fn judge(&mut self, key: ExecutableKey, tgid: u32, asker: Asker) -> Option<u32> {
        if key == ExecutableKey::FOREIGN {
            return Some(0);
        }
        if !self.tables.executables.contains_key(&key) {
            let changed = self.executables.judge_process(key, tgid, asker);
            let _ = self.update_executables(&changed);
        }
        self.executables.touch(&key);
        self.tables.executables.get(&key).copied()
    }

    /// The questions about containers to ask now, at most `most`; none is left out for long. None are asked while
    /// no workload cares.
    pub fn container_questions(&mut self, most: usize) -> Vec<ContainerQuestion> {
        if !self.placement.asks_containers() {
            return Vec::new();
        }
        self.containers.due(Instant::now(), most)
    }

    /// When the next question about a container is due.
    #[must_use]
    pub fn next_container_question(&self) -> Option<Instant> {
        let asks = self.placement.asks_containers();
        self.containers.next_due().filter(|_| asks)
    }

    /// Takes an answer; returns whether the tables changed.
    pub fn container_answered(&mut self, cgroup: u64, answer: ContainerAnswer) -> bool {
        let Some(path) = self.containers.answered(cgroup, answer, Instant::now()) else {
            return false;
        };
        self.tables.containers = Arc::new(self.containers.facts_by_path());
        let _ = self.update_entries(&self.tree.subtree(&path));
        true
    }

    /// Paths of the cgroups whose container is not known yet, where a workload asks for it.
    pub fn unknown_containers(&self) -> impl Iterator<Item = &Path> {
        let asks = self.placement.asks_containers();
        self.containers.waiting().filter(move |_| asks)
    }

    /// What runtimes have said of containers, by cgroup.
    #[must_use]
    pub fn containers(&self) -> BTreeMap<u64, ContainerFacts> {
        self.containers.facts()
    }

    /// Takes what an earlier process knew of the same cgroups.
    pub fn remember_containers(&mut self, facts: BTreeMap<u64, ContainerFacts>) {
        self.containers = Containers::default();
        self.containers.remember(facts);
        self.look_for_containers();
        self.build();
    }

    /// Executables larger than `limit` bytes match no `sha256` selector; of all others `rate` bytes a second are read for each
    /// [`Asker`] once `limit` bytes were.
    pub fn limit_hashing(&mut self, limit: u64, rate: u64) {
        self.executables.limit_hashing(limit, rate);
    }

    /// From now on executables are hashed on a thread of its own and pending meanwhile. Call
    /// [`Self::take_hashed`] after each notification.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn hash_in_background(&mut self) -> io::Result<Arc<Notify>> {
        self.executables.hash_in_background()
    }

    /// Judges executables that were hashed; returns whether the tables changed.
    pub fn take_hashed(&mut self) -> bool {
        let changed = self.executables.take_hashed();
        self.update_executables(&changed)
    }

    /// What the kernel maps must hold now.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Workloads that turned out to be tied since they were set. Processes that both claim have the
    /// identity `UNKNOWN`.
    pub fn ties(&self) -> impl Iterator<Item = &Tie> {
        self.placement.ties()
    }

    /// Workloads that turned out to ask for too many groups in one cgroup, whose processes have the identity
    /// `UNKNOWN`.
    #[must_use]
    pub fn crowd(&self) -> Option<&Crowd> {
        self.placement.crowd()
    }

    /// Selectors of users and groups that this host did not know when the workloads were set.
    pub(super) fn unknown_names(&self) -> impl Iterator<Item = &str> {
        let specs = self.placement.specs().iter();
        specs.flat_map(|spec| spec.unknown.iter().map(String::as_str))
    }

    /// Whether the path of an `exe` selector leads to a file.
    pub(super) fn is_file(&self, path: &Path) -> bool {
        self.executables.is_file(path)
    }

    /// Executables that were forgotten for lack of room.
    #[must_use]
    pub fn forgotten(&self) -> Forgotten {
        self.executables.forgotten()
    }

    /// How often a cgroup was left out because there are too many or it lies too deep, and where some are left out now.
    #[must_use]
    pub fn left_out(&self) -> (u64, Option<&Path>) {
        self.tree.left_out()
    }

    /// How often a path was compared with all patterns since the workloads were set.
    #[cfg(test)]
    pub(super) fn comparisons(&self) -> u64 {
        self.placement.comparisons()
    }

    /// The guarded directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Id of the guarded directory.
    #[must_use]
    pub fn root_id(&self) -> u64 {
        self.tree.root_id()
    }

    /// Path of a cgroup below the guarded root, with a leading slash.
    #[must_use]
    pub fn cgroup_path(&self, id: u64) -> Option<&Path> {
        self.tree.path(id)
    }

    /// Id of the cgroup at a path below the guarded root.
    #[must_use]
    pub fn cgroup_at(&self, path: &Path) -> Option<u64> {
        self.tree.find(path)
    }

    /// Which cgroups there are, and which of them hold what workload.
    #[must_use]
    pub fn inventory(&self) -> &Inventory {
        self.keeper.inventory()
    }

    /// What the kernel makes of a process, by the same steps: `PENDING` while the executable is not
    /// judged, `UNKNOWN` where there is none to judge or its groups matter and are not known. An unknown cgroup stands for the root where no
    /// cgroup below that can be someone else; its ancestors can't be told from the number.
    #[must_use]
    pub fn resolve(
        &self,
        cgroup: u64,
        exe: Option<&ExecutableKey>,
        uid: u32,
        groups: &Groups,
    ) -> Identity {
        self.tables
            .resolve(cgroup, self.root_id(), exe, uid, groups)
    }

    /// Who the owner of a socket is now; `None` where that can't be told.
    #[must_use]
    pub fn present(&self, owner: &Owner) -> Option<Identity> {
        if owner.identity == AGENT || owner.tgid == 0 || !self.is_there(owner.cgroup) {
            return None;
        }
        let key = owner.executable;
        let key = (key != ExecutableKey::default()).then_some(key);
        let groups = Groups::Noted(owner.class);
        let found = self.resolve(owner.cgroup, key.as_ref(), owner.uid, &groups);
        (found != PENDING && found != UNKNOWN).then_some(found)
    }

    /// Whether a cgroup is there.
    #[must_use]
    pub fn is_there(&self, cgroup: u64) -> bool {
        self.tables.cgroups.contains_key(&cgroup)
    }

    /// Process class of a process in a cgroup, 0 = none or not known.
    #[must_use]
    pub fn class_of(&self, cgroup: u64, groups: &Groups) -> u32 {
        self.tables.class_of(cgroup, groups).unwrap_or(0)
    }

    /// Whether that is enough of the groups of a process to tell what it is in a cgroup.
    #[must_use]
    pub fn knows(&self, cgroup: u64, groups: &Groups) -> bool {
        self.tables.class_of(cgroup, groups).is_some()
    }

    /// Whether the kernel, which takes a process of this cgroup for one of `class`, has yet to be told which of
    /// the groups that matter there it is in.
    #[must_use]
    pub fn lacks_groups(&self, cgroup: u64, class: u32) -> bool {
        let entry = self.tables.cgroups.get(&cgroup);
        entry.is_some_and(|entry| entry.class & GROUPED != 0 && class & !MEMBER != entry.class)
    }

    fn update_cgroups(&mut self, ids: &BTreeSet<u64>) -> bool {
        let now = Instant::now();
        for id in ids {
            match self.tree.path(*id) {
                Some(path) => {
                    self.containers
                        .appeared(*id, path, self.tree.is_roots(*id), now);
                }
                None => self.containers.gone(*id),
            }
        }
        self.update_entries(ids)
    }

    /// Brings the entries of cgroups up to date.
    fn update_entries(&mut self, ids: &BTreeSet<u64>) -> bool {
        let mut updated = false;
        for id in ids {
            self.placement.forget(*id);
        }
        for id in ids {
            updated |= if self.tree.path(*id).is_some() {
                self.tables
                    .set_cgroup(*id, &self.tree, &self.containers, &mut self.placement)
            } else {
                self.tables.remove_cgroup(*id)
            };
            self.keeper
                .update(*id, &self.tree, &self.containers, &self.placement);
        }
        self.take_processes() || updated
    }

    fn build(&mut self) {
        self.placement.forget_all();
        self.tables = Tables::build(
            &self.tree,
            &self.containers,
            &mut self.placement,
            &self.executables,
        );
        self.keeper = Keeper::new(&self.tree, &self.containers, &self.placement);
    }

    /// Compares what is known of containers with the whole tree.
    fn look_for_containers(&mut self) {
        let now = Instant::now();
        self.containers
            .retain(|cgroup| self.tree.path(cgroup).is_some());
        for (id, path) in self.tree.iter() {
            self.containers
                .appeared(id, path, self.tree.is_roots(id), now);
        }
    }

    fn refresh_executables(&mut self) -> bool {
        let changed = self.executables.refresh();
        self.update_executables(&changed)
    }

    fn update_executables(&mut self, keys: &BTreeSet<ExecutableKey>) -> bool {
        let mut updated = false;
        for key in keys {
            updated |= if let Some(facts) = self.executables.facts(key) {
                let class = self.placement.executable(&facts);
                self.tables.executables.insert(*key, class) != Some(class)
            } else {
                self.tables.executables.remove(key).is_some()
            };
        }
        self.take_processes() || updated
    }

    /// The table only grows while the workloads stay the same.
    fn take_processes(&mut self) -> bool {
        let processes = self.placement.processes();
        let groups = self.placement.groups();
        if processes.len() == self.tables.processes.len()
            && groups.len() == self.tables.groups.len()
        {
            return false;
        }
        self.tables.processes.clone_from(processes);
        self.tables.groups.clone_from(groups);
        true
    }
}

impl AsFd for Resolver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watcher.as_fd()
    }
}
