//! Policy and identity into the kernel: the one place that changes what is enforced.
//!
//! A new policy is checked as a whole (parsed, compiled, its selectors resolved) before the kernel sees
//! any of it; when something fails the policy before stays in force.

mod bounds;
mod keep;
mod repair;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use ringfence_common::abi::Identity;
use ringfence_policy::{
    compile::{self, Compilation, Compiled, Context},
    model::{Document, Identities, PolicySet},
    parse::{Diagnostic, Lint, Parsed},
};
use tokio::sync::Notify;

use self::bounds::Addresses;
use super::{clock::Pair, containers, preview::Proposal, questions::Question};
use crate::{
    api::{PolicySource, PolicyView},
    datapath::Datapath,
    identity::{self, ContainerAnswer, ContainerQuestion, OnTie, Resolver, Tables, adopt},
    runtime::Answer,
    sync::Held,
};

/// Owner of the datapath and the resolver.
pub struct Engine {
    datapath: Datapath,
    resolver: Resolver,
    clock: Pair,
    deny_unselected: bool,
    state_dir: PathBuf,
    /// The controller's policy in force.
    controller: Option<Held>,
    /// The policy directory's documents in force.
    local: Vec<Document>,
    /// What they say.
    parsed: Parsed,
    compilation: Compilation,
    /// What is valid in it but hardly meant.
    lint: Lint,
    warnings: Vec<String>,
    /// What is so because of files of this host.
    scripts: Vec<String>,
    /// Warnings that were logged last.
    said: Vec<String>,
    /// What the identity maps hold.
    written: Option<Arc<Tables>>,
    source: PolicySource,
    /// Whether a policy of this process is in force, not only that of an agent before.
    in_force: bool,
    repairs: Repairs,
    addresses: Addresses,
    /// Why the identity maps do not hold what they should.
    unwritten: Option<String>,
    /// Why the disk does not hold what is in force.
    unkept: Option<String>,
}

/// What others had removed and is back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Hooks that were detached.
    pub hooks: usize,
    /// Pins of hooks and maps.
    pub pins: usize,
}

/// A policy that is valid but not in force.
struct Candidate {
    parsed: Parsed,
    compilation: Compilation,
    lint: Lint,
    warnings: Vec<String>,
    scripts: Vec<String>,
}

impl Engine {
    /// Nothing is in force yet.
    #[must_use]
    pub fn new(
        datapath: Datapath,
        resolver: Resolver,
        deny_unselected: bool,
        state_dir: PathBuf,
    ) -> Self {
        Self {
            datapath,
            resolver,
            clock: Pair::read(),
            deny_unselected,
            state_dir,
            controller: None,
            local: Vec::new(),
            parsed: Parsed::default(),
            compilation: Compilation::default(),
            lint: Lint::default(),
            warnings: Vec::new(),
            scripts: Vec::new(),
            said: Vec::new(),
            written: None,
            source: PolicySource::Files,
            in_force: false,
            repairs: Repairs::default(),
            addresses: Addresses::default(),
            unwritten: None,
            unkept: None,
        }
    }

    /// Makes these documents the policy in force; [`Self::save`] keeps them for the next start.
    ///
    /// # Errors
    /// Every reason why they are refused, one a line; the policy before stays in force.
    pub fn apply(
        &mut self,
        controller: Option<Held>,
        local: Vec<Document>,
        source: PolicySource,
    ) -> Result<(), String> {
        self.apply_with(controller, local, source, OnTie::Refuse)
    }

    /// The same for documents that were in force before: what has tied two workloads since then is no
    /// reason to enforce nothing.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_again(
        &mut self,
        controller: Option<Held>,
        local: Vec<Document>,
        source: PolicySource,
    ) -> Result<(), String> {
        self.apply_with(controller, local, source, OnTie::Deny)
    }

    fn apply_with(
        &mut self,
        controller: Option<Held>,
        local: Vec<Document>,
        source: PolicySource,
        on_tie: OnTie,
    ) -> Result<(), String> {
        let candidate = self.check(controller.as_ref(), &local)?;
        self.enforce(candidate, on_tie)?;
        self.controller = controller;
        self.local = local;
        self.source = source;
        self.say_warnings();
        Ok(())
    }

    /// Compiles the policy in force again, because a time in it has come or the wall clock was set.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn renew(&mut self) -> Result<(), String> {
        if self.clock.is_stale() {
            self.clock = Pair::read();
        }
        let candidate = self.check(self.controller.as_ref(), &self.local)?;
        self.enforce(candidate, OnTie::Deny)?;
        self.say_warnings();
        Ok(())
    }

    /// Logs the warnings about the policy in force, unless they were all logged before.
    fn say_warnings(&mut self) {
        let warnings = self.warnings();
        if self.said != warnings {
            for warning in &warnings {
                tracing::warn!(warning, "policy");
            }
            self.said = warnings;
        }
    }

    /// Whether the policy must be compiled again now.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let (now, _) = self.clock.now();
        self.clock.is_stale()
            || self
                .compilation
                .compiled
                .next_change
                .is_some_and(|change| change <= now)
    }

    /// What these documents would make of the host, and of the processes with these numbers.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn propose(&self, local: &[Document], tgids: &BTreeSet<u32>) -> Result<Proposal, String> {
        let candidate = self.check(self.controller.as_ref(), local)?;
        let absent = identity::absent(&candidate.compilation.set, Some(local));
        let warnings = [&*candidate.warnings, &*candidate.scripts, &absent].concat();
        let Compilation {
            set,
            identities,
            compiled,
            ..
        } = candidate.compilation;
        let foreseen = self
            .resolver
            .foresee(&set.workloads, &identities, tgids)
            .map_err(|error| error.to_string())?;
        let rules = set.policies.iter();
        Ok(Proposal {
            sizes: [
                set.workloads.len(),
                set.policies.len(),
                rules.map(|policy| policy.rules.len()).sum(),
            ],
            compiled,
            identities,
            warnings,
            foreseen,
        })
    }

    /// Whether these documents are valid together.
    ///
    /// # Errors
    /// Every reason why not, one a line.
    pub fn is_valid(&self, controller: Option<&Held>, local: &[Document]) -> Result<(), String> {
        self.check(controller, local).map(drop)
    }

    fn check(&self, controller: Option<&Held>, local: &[Document]) -> Result<Candidate, String> {
        let mut documents: Vec<Document> = local.to_vec();
        documents.extend(controller.iter().flat_map(|held| held.documents.clone()));
        let parsed = self.parsed.next(&documents).map_err(|problems| {
            problems
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        })?;
        let set = &parsed.set;
        let same_workloads = set.workloads.is(&self.compilation.set.workloads);
        let before = self.controller.as_ref().map(|held| &held.identities);
        let same = same_workloads && before == controller.map(|held| &held.identities);
        let identities = if same {
            Arc::clone(&self.compilation.identities)
        } else {
            Arc::new(number(set, controller)?)
        };
        let (now, boot_now_ns) = self.clock.now();
        let context = Context {
            now,
            boot_now_ns,
            deny_unselected: self.deny_unselected,
        };
        let compilation = self.compilation.next(set.clone(), identities, &context);
        let text = |found: &Diagnostic| found.to_string();
        let lint = self.lint.next(set, time::OffsetDateTime::now_utc());
        let scripts = if same_workloads {
            self.scripts.clone()
        } else {
            identity::scripts(set).iter().map(text).collect()
        };
        Ok(Candidate {
            compilation: compilation.map_err(|error| error.to_string())?,
            warnings: lint.all().iter().map(text).collect(),
            lint,
            scripts,
            parsed,
        })
    }

    /// Judges executables that the kernel asked about, and gives the sockets of processes that wait because
    /// of their groups an owner.
    pub fn answer(&mut self, questions: &[Question]) {
        let mut waiting = BTreeSet::new();
        let unknown = |question: &Question| !self.resolver.is_judged(&question.key);
        if questions.iter().any(unknown) {
            self.resolver.look_at_paths();
        }
        for Question {
            key,
            tgid,
            cgroup,
            class,
            asker,
        } in questions
        {
            let judged = self.resolver.judge(*key, *tgid, *asker);
            tracing::debug!(?key, tgid, ?judged, "executable judged");
            if self.resolver.lacks_groups(*cgroup, *class) {
                let _ = waiting.insert(*tgid);
            }
        }
        self.follow_identities();
        if !waiting.is_empty() {
            let processes = adopt::those(&self.resolver, waiting);
            let _written = self.datapath.sockets.adopt(&self.resolver, processes);
        }
    }

    /// The questions about containers to ask now, at most `most`.
    pub fn container_questions(&mut self, most: usize) -> Vec<ContainerQuestion> {
        self.resolver.container_questions(most)
    }

    /// Takes what container runtimes answered.
    pub fn containers_answered(&mut self, answers: impl Iterator<Item = Answer>) {
        let (mut changed, mut learnt) = (false, false);
        for Answer {
            cgroup, outcome, ..
        } in answers
        {
            let answer = containers::judge(&self.resolver, cgroup, outcome);
            learnt |= matches!(answer, ContainerAnswer::Is(_));
            changed |= self.resolver.container_answered(cgroup, answer);
        }
        if changed {
            self.follow_identities();
        }
        if learnt && let Err(error) = containers::save(&self.state_dir, self.resolver.containers())
        {
            tracing::error!(%error, "what container runtimes said is not kept on disk");
        }
    }

    /// From now on executables are hashed while everything else goes on; call [`Self::take_hashed`] after
    /// each notification.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn hash_in_background(&mut self) -> io::Result<Arc<Notify>> {
        self.resolver.hash_in_background()
    }

    /// Judges executables that were hashed.
    pub fn take_hashed(&mut self) {
        if self.resolver.take_hashed() {
            self.follow_identities();
        }
    }

    /// Takes in what changed in the cgroup tree and in approved files, as far as it gets in one turn; whether
    /// there is more: [`Self::is_behind`].
    pub fn tree_changed(&mut self) {
        if self.resolver.process_events() {
            self.follow_identities();
        }
    }

    /// Whether [`Self::tree_changed`] is to be called again, after others have had their turn.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.resolver.is_behind()
    }

    /// Looks at everything anew, where not everything can be watched.
    pub fn rescan(&mut self) {
        if self.resolver.rescan_interval().is_some() && self.resolver.rescan() {
            self.tree_changed();
        }
    }

    /// Where state is kept that outlives the agent.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// All repairs since the start.
    #[must_use]
    pub const fn repairs(&self) -> Repairs {
        self.repairs
    }

    /// The datapath.
    pub fn datapath(&mut self) -> &mut Datapath {
        &mut self.datapath
    }

    /// The resolver.
    #[must_use]
    pub const fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// What the identity maps hold; nothing while that is not known.
    #[must_use]
    pub fn tables(&self) -> Option<&Arc<Tables>> {
        self.written.as_ref()
    }

    /// The controller's policy in force.
    #[must_use]
    pub const fn controller(&self) -> Option<&Held> {
        self.controller.as_ref()
    }

    /// The policy directory's documents in force.
    #[must_use]
    pub fn local(&self) -> &[Document] {
        &self.local
    }

    /// Where the policy in force came from.
    #[must_use]
    pub const fn source(&self) -> PolicySource {
        self.source
    }

    /// What is valid in the policy in force but hardly meant.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let absent = self.resolver.absent(&self.compilation.set, &self.local);
        [&*self.warnings, &*self.scripts, &absent].concat()
    }

    /// The policy in force.
    #[must_use]
    pub fn set(&self) -> &PolicySet {
        &self.compilation.set
    }

    /// The identity of each workload.
    #[must_use]
    pub fn identities(&self) -> &Identities {
        &self.compilation.identities
    }

    /// The tables in force.
    #[must_use]
    pub fn compiled(&self) -> &Compiled {
        &self.compilation.compiled
    }

    /// What the interfaces show of it.
    #[must_use]
    pub fn view(&self) -> PolicyView {
        PolicyView {
            set: Arc::clone(&self.compilation.set),
            identities: Arc::clone(&self.compilation.identities),
            compiled: Arc::clone(&self.compilation.compiled),
            cgroups: self.resolver.inventory().clone(),
        }
    }
}

/// Numbers the workloads: as the controller says, others by their name.
fn number(set: &PolicySet, controller: Option<&Held>) -> Result<Identities, String> {
    let mut identities = controller.map_or_else(Identities::new, |held| held.identities.clone());
    let mut taken: BTreeMap<Identity, String> = identities
        .iter()
        .map(|(name, identity)| (*identity, name.clone()))
        .collect();
    for workload in &set.workloads {
        if identities.contains_key(&workload.name) {
            continue;
        }
        let identity = compile::derive_identity(&workload.name);
        if let Some(other) = taken.insert(identity, workload.name.clone()) {
            return Err(format!(
                "{}:{}: workload \"{}\" gets the same identity as \"{other}\"; rename one of them",
                workload.file, workload.line, workload.name
            ));
        }
        let _ = identities.insert(workload.name.clone(), identity);
    }
    Ok(identities)
}
