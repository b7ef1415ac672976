//! The task that owns the [`Engine`]: takes in every cause for a change, one at a time.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use ringfence_common::abi::Count;
use ringfence_documents::Watch;
use ringfence_policy::model::Document;
use tokio::{
    signal::unix::Signal,
    sync::{mpsc, watch},
    task::{block_in_place, yield_now},
    time::interval,
};
use tokio_util::sync::CancellationToken;

use super::{
    containers,
    engine::Engine,
    frames,
    publish::Published,
    questions::Question,
    refusals::Refusals,
    revoke,
    start::hooks,
    trial::{self, Trial},
    warnings::{self, InForce, Unmatched},
};
use crate::{
    api::{ControllerState, PolicySource},
    change::Command,
    datapath::{Counts, poll},
    endpoints, flow,
    metrics::Metrics,
    runtime,
    sync::{Held, Phase, Update},
};

/// How often times, links, addresses and counters are looked at.
const TICK: Duration = Duration::from_secs(1);

/// Everything that the task owns.
pub struct Task {
    /// The datapath and what is in force.
    pub engine: Engine,
    /// Directory of policy documents.
    pub policy_dir: PathBuf,
    /// Where the state is shown.
    pub published: Published,
    /// Counters of the agent.
    pub metrics: Metrics,
    /// Counters of the programs.
    pub counts: Arc<Counts>,
    /// The flow log.
    pub flows: flow::Handle,
    /// Whether there is a controller to ask.
    pub controller: bool,
    /// Warnings of the start: about the configuration, and about what it found in the kernel.
    pub configured: Vec<String>,
    /// Warnings about workloads that match no cgroup at present.
    pub unmatched: Unmatched,
    /// What the policy directory was last found to hold, or why it is refused.
    pub found: Result<Vec<Document>, String>,
    /// What is not in force.
    pub refusals: Refusals,
    /// Policies from the controller.
    pub updates: mpsc::Receiver<Update>,
    /// The controller's policy that was refused and came into force later.
    pub adopted: watch::Sender<Option<Held>>,
    /// Executables that the kernel asks about.
    pub asked: mpsc::Receiver<Vec<Question>>,
    /// The container runtimes.
    pub runtimes: containers::Runtimes,
    /// Requests to read the policy directory, from before the start on.
    pub hangup: Signal,
    /// The change that waits to be confirmed.
    pub trial: Option<Trial>,
    /// What became of the last one, where it was rolled back.
    pub note: Option<String>,
    /// What operators ask.
    pub commands: mpsc::Receiver<Command>,
    /// Where workloads listen.
    pub endpoints: endpoints::Handle,
    /// Connections that are never ended.
    pub spared: revoke::Spared,
    /// Connections to end.
    pub revoke: mpsc::Sender<revoke::Target>,
    /// Devices whose frames are judged.
    pub covered: watch::Receiver<frames::State>,
}

impl Task {
    /// Shows what the start has found, for whoever asks from now on.
    pub fn show(&mut self) {
        self.show_cgroups();
        self.show_trial();
    }

    /// Runs until `cancel`.
    ///
    /// # Errors
    /// A watch or signal can't be set up.
    pub async fn run(mut self, cancel: CancellationToken) -> anyhow::Result<()> {
        let mut tick = interval(TICK);
        let tree: OwnedFd = self.engine.resolver().as_fd().try_clone_to_owned()?;
        let tree = poll::register(tree).context("the watch on the cgroup tree")?;
        let mut files = Watch::new(&self.policy_dir)
            .context("the watch on the policy directory; raise fs.inotify.max_user_instances")?;
        // Until here what runs already was hashed at once, so that its sockets have owners.
        let hashed = self
            .engine
            .hash_in_background()
            .context("the thread that hashes executables")?;
        // It may have changed since it was first read.
        self.read_files(false).await;
        loop {
            if let Some(tables) = self.engine.tables() {
                self.published.set_tables(tables);
            }
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                ready = tree.readable() => {
                    ready?.clear_ready();
                    block_in_place(|| self.engine.tree_changed());
                    self.show_cgroups();
                }
                () = yield_now(), if self.engine.is_behind() => {
                    block_in_place(|| self.engine.tree_changed());
                    self.show_cgroups();
                }
                Some(update) = self.updates.recv() => self.take_update(update).await,
                Some(command) = self.commands.recv() => self.command(command).await,
                () = trial::due(self.trial.as_ref().map(Trial::due_ns)) => self.time_is_up().await,
                Some(questions) = self.asked.recv() => {
                    block_in_place(|| self.engine.answer(&questions));
                }
                Some(answer) = self.runtimes.answers.recv() => self.take_answers(answer),
                () = containers::due(self.engine.resolver().next_container_question(), &self.runtimes.questions) => {
                    self.ask_runtimes();
                }
                () = hashed.notified() => block_in_place(|| self.engine.take_hashed()),
                () = files.changed() => self.read_files(false).await,
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP: reading the policy directory");
                    self.read_files(true).await;
                }
                _ = tick.tick() => self.tick().await?,
            }
        }
    }

    /// Puts a policy into force and keeps it on disk.
    ///
    /// # Errors
    /// Why it is refused; the one before stays in force.
    pub(super) async fn apply(
        &mut self,
        controller: Option<Held>,
        local: Vec<Document>,
        source: PolicySource,
    ) -> Result<(), String> {
        let began = Instant::now();
        let result = block_in_place(|| self.engine.apply(controller, local, source));
        if result.is_ok() {
            self.refusals.renewal = None;
            self.applied(began.elapsed()).await;
            // Before the policy is acknowledged: a restart must not go back behind it.
            block_in_place(|| self.save());
        }
        result
    }

    /// Keeps on disk what is in force.
    fn save(&mut self) {
        if self.trial.is_some() {
            // A start must find the former one beside it.
            self.engine.save_controllers();
        } else {
            self.engine.save();
        }
    }

    pub(super) async fn applied(&mut self, took: Duration) {
        let generation = self.generation();
        let workloads = self.engine.resolver().inventory().workloads();
        tracing::info!(
            generation,
            workloads,
            took_us = took.as_micros(),
            "policy in force"
        );
        self.metrics.policy_applied(generation, workloads, took);
        self.published.set_policy(self.engine.view());
        self.show_cgroups();
        let source = self.engine.source();
        let controller = self.engine.controller().map_or(0, |held| held.generation);
        self.published.update_status(|status| {
            status.generation = generation;
            status.applied = Some(SystemTime::now());
            status.policy_source = source;
            status.controller_generation = controller;
        });
        let Ok(live) = self.flows.live().await else {
            return;
        };
        let resolver = self.engine.resolver();
        let live = revoke::as_of_now(live, |owner| resolver.present(owner));
        for target in revoke::denied(&live, self.engine.compiled(), &self.spared) {
            if self.revoke.try_send(target).is_err() {
                tracing::warn!(
                    "too many connections to reset at once; the packets of the others are dropped"
                );
                return;
            }
        }
    }

    /// Takes an answer with those that wait behind it: the maps and the disk are written once.
    fn take_answers(&mut self, first: runtime::Answer) {
        let answers = &mut self.runtimes.answers;
        let waiting = std::iter::from_fn(|| answers.try_recv().ok());
        let all = std::iter::once(first)
            .chain(waiting)
            .take(super::CONTAINER_QUESTIONS);
        block_in_place(|| self.engine.containers_answered(all));
        self.show_cgroups();
    }

    fn ask_runtimes(&mut self) {
        for question in self
            .engine
            .container_questions(self.runtimes.questions.capacity())
        {
            if let Some(question) = runtime::Question::new(question.cgroup, &question.id) {
                // There is room: it was counted.
                let _ = self.runtimes.questions.try_send(question);
            }
        }
    }

    async fn tick(&mut self) -> anyhow::Result<()> {
        self.engine.check_root().map_err(anyhow::Error::msg)?;
        if self.engine.is_unkept() {
            block_in_place(|| self.save());
        }
        if self.engine.is_due() {
            let began = Instant::now();
            match block_in_place(|| self.engine.renew()) {
                Ok(()) => {
                    self.refusals.renewal = None;
                    self.applied(began.elapsed()).await;
                }
                Err(error) => self.refusals.renewal = Some(error),
            }
            self.refusals.show(&self.published, &self.metrics);
        }
        block_in_place(|| {
            self.engine.rescan();
            self.engine.refresh_addresses();
        });
        match self.engine.check_links() {
            Ok(done) => {
                if done.hooks > 0 {
                    tracing::error!(
                        hooks = done.hooks,
                        "hooks were detached by someone else; they are attached again"
                    );
                }
                if done.pins > 0 {
                    tracing::warn!(
                        pins = done.pins,
                        directory = ?self.engine.datapath().directory(),
                        "pins were removed by someone else; they are there again"
                    );
                }
                self.metrics.repaired(done.hooks, done.pins);
            }
            Err(error) => tracing::error!(
                error,
                "hooks or pins were removed by someone else and can't be put back"
            ),
        }
        let sync = self.published.sync_state();
        self.refusals.unverified.clone_from(&sync.refused);
        self.refusals.show(&self.published, &self.metrics);
        self.metrics
            .controller_connected(sync.phase == Phase::Connected);
        let counts = self.counts.counts();
        let suppressed = usize::try_from(Count::AnswerSuppressed as u32)
            .ok()
            .and_then(|index| counts.get(index).copied());
        let answers = self.metrics.answers().all(suppressed.unwrap_or(0));
        let hooks = hooks(&mut self.engine);
        let repairs = self.engine.repairs();
        let left_out = self.engine.left_out();
        self.metrics.left_out(left_out);
        let covered = self.covered.borrow().clone();
        let warnings = self.warnings();
        self.published.update_status(|status| {
            status.hooks = hooks;
            status.warnings = warnings;
            status.counts = Count::ALL
                .iter()
                .zip(counts)
                .map(|((_, name), value)| ((*name).to_owned(), value))
                .collect();
            for (name, value) in [
                ("hooks-reattached", repairs.hooks + covered.reattached),
                ("pins-restored", repairs.pins + covered.repinned),
                ("frame-devices", covered.devices),
            ] {
                let value = u64::try_from(value).unwrap_or(u64::MAX);
                let _ = status.counts.insert(name.to_owned(), value);
            }
            for (name, value) in [
                ("executables-forgotten", left_out.executables),
                ("cgroups-left-out", left_out.cgroups),
                ("addresses-left-out", left_out.addresses),
            ] {
                let _ = status.counts.insert(name.to_owned(), value);
            }
            status
                .counts
                .extend(answers.map(|(name, value)| (name.to_owned(), value)));
            if status.controller_state.is_some() {
                status.controller_state = Some(match sync.phase {
                    Phase::Connected => ControllerState::Connected,
                    Phase::Connecting => ControllerState::Connecting,
                });
                status.controller_endpoint = sync.endpoint;
                status.controller_error = sync.last_error;
            }
        });
        super::notify(&[sd_notify::NotifyState::Watchdog]);
        Ok(())
    }

    fn show_cgroups(&mut self) {
        let resolver = self.engine.resolver();
        self.unmatched.update(&InForce {
            set: self.engine.set(),
            identities: self.engine.identities(),
            compiled: self.engine.compiled(),
            local: self.engine.local(),
            cgroups: resolver.inventory(),
        });
        self.published.set_cgroups(resolver.inventory());
        let warnings = self.warnings();
        self.published
            .update_status(|status| status.warnings = warnings);
    }

    /// Everything that deserves a second look.
    fn warnings(&self) -> Vec<String> {
        let held = self.engine.controller().is_some();
        let controller = self.controller.then_some(held);
        let none = warnings::no_policy(self.engine.local(), &self.policy_dir, controller);
        let containers = warnings::containers(
            self.engine.resolver().unknown_containers(),
            &self.runtimes.states.borrow(),
        );
        let ties = warnings::ties(self.engine.resolver().ties());
        let crowd = self.engine.resolver().crowd().map(|crowd| {
            format!("{crowd}: processes there are of no workload and not allowed; use fewer groups")
        });
        let mut all = self.configured.clone();
        all.extend(none);
        all.extend(self.engine.warnings());
        all.extend(ties);
        all.extend(containers);
        all.extend(crowd);
        all.extend(self.engine.bounds());
        all.extend(frames::warning(&self.covered.borrow()));
        all.extend_from_slice(self.unmatched.lines());
        all.extend(self.note.clone());
        if let (Some(trial), Ok(found)) = (&self.trial, &self.found)
            && trial.is_overtaken(found)
        {
            all.push(
                "the policy directory was changed while a change is on trial: it counts when that ends"
                    .to_owned(),
            );
        }
        all
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the kernel keeps the low half too"
    )]
    pub(super) fn generation(&mut self) -> u32 {
        self.engine.datapath().tables.generation() as u32
    }
}
