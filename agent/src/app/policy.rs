//! The task that owns the [`Engine`]: takes in every cause for a change, one at a time.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use ringfence_common::abi::Count;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::block_in_place,
    time::interval,
};
use tokio_util::sync::CancellationToken;

use super::{
    documents::{self, Watch},
    engine::Engine,
    events::Question,
    publish::Published,
    revoke,
    start::hooks,
};
use crate::{
    api::{ControllerState, PolicySource},
    datapath::{Counts, poll},
    flow,
    metrics::Metrics,
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
    /// Policies from the controller.
    pub updates: mpsc::Receiver<Update>,
    /// Executables that the kernel asks about.
    pub asked: mpsc::Receiver<Question>,
    /// Connections that are never ended.
    pub spared: revoke::Spared,
    /// Connections to end.
    pub revoke: mpsc::Sender<revoke::Target>,
}

impl Task {
    /// Runs until `cancel`.
    ///
    /// # Errors
    /// A watch or signal can't be set up.
    pub async fn run(mut self, cancel: CancellationToken) -> anyhow::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut tick = interval(TICK);
        let tree: OwnedFd = self.engine.resolver().as_fd().try_clone_to_owned()?;
        let tree = poll::register(tree).context("the watch on the cgroup tree")?;
        let mut files = Watch::new(&self.policy_dir);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                ready = tree.readable() => {
                    ready?.clear_ready();
                    block_in_place(|| self.engine.tree_changed());
                    self.show_cgroups();
                }
                Some(update) = self.updates.recv() => self.take_update(update).await,
                Some(question) = self.asked.recv() => self.judge(question),
                () = files.changed() => self.read_files().await,
                _ = hangup.recv() => {
                    tracing::info!("SIGHUP: reading the policy directory");
                    self.read_files().await;
                }
                _ = tick.tick() => {
                    self.tick().await;
                    if files.retry() {
                        self.read_files().await;
                    }
                }
            }
        }
    }

    async fn take_update(&mut self, update: Update) {
        let held = Held {
            generation: update.generation,
            documents: update.documents,
            identities: update.identities,
        };
        let local = self.engine.local().to_vec();
        let result = self
            .apply(Some(held), local, PolicySource::Controller)
            .await;
        // The stream may be gone; the policy is in force all the same.
        let _ = update.reply.send(result);
    }

    async fn read_files(&mut self) {
        let controller = self.engine.controller().cloned();
        let source = match controller {
            Some(_) => self.engine.source(),
            None => PolicySource::Files,
        };
        let result = match documents::read(&self.policy_dir) {
            Ok(local) if local == self.engine.local() => return,
            Ok(local) => self.apply(controller, local, source).await,
            Err(error) => {
                self.refused(&error);
                return;
            }
        };
        drop(result);
    }

    async fn apply(
        &mut self,
        controller: Option<Held>,
        local: Vec<ringfence_policy::model::Document>,
        source: PolicySource,
    ) -> Result<(), String> {
        let began = Instant::now();
        let result = block_in_place(|| self.engine.apply(controller, local, source));
        let took = began.elapsed();
        match &result {
            Ok(()) => {
                self.applied(took).await;
                // Before the policy is acknowledged: a restart must not go back behind it.
                block_in_place(|| self.engine.save());
            }
            Err(error) => self.refused(error),
        }
        result
    }

    async fn applied(&mut self, took: Duration) {
        let generation = self.generation();
        let workloads = self.engine.resolver().inventory().len();
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
            status.policy_error = None;
        });
        let Ok(live) = self.flows.live().await else {
            return;
        };
        for target in revoke::denied(&live, self.engine.compiled(), &self.spared) {
            if self.revoke.try_send(target).is_err() {
                tracing::warn!(
                    "too many connections to reset at once; the packets of the others are dropped"
                );
                return;
            }
        }
    }

    fn refused(&mut self, error: &str) {
        tracing::error!(error, "policy refused; the one before stays in force");
        self.metrics.policy_refused();
        self.published
            .update_status(|status| status.policy_error = Some(error.to_owned()));
    }

    fn judge(&mut self, first: Question) {
        let mut questions = vec![(first.key, first.tgid)];
        while let Ok(next) = self.asked.try_recv() {
            questions.push((next.key, next.tgid));
        }
        questions.dedup();
        block_in_place(|| self.engine.judge_executables(questions.into_iter()));
    }

    async fn tick(&mut self) {
        if self.engine.is_due() {
            let began = Instant::now();
            match block_in_place(|| self.engine.renew()) {
                Ok(()) => self.applied(began.elapsed()).await,
                Err(error) => self.refused(&error),
            }
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
        self.metrics
            .controller_connected(sync.phase == Phase::Connected);
        let counts = self.counts.counts();
        let hooks = hooks(&mut self.engine);
        let repairs = self.engine.repairs();
        self.published.update_status(|status| {
            status.hooks = hooks;
            status.counts = Count::ALL
                .iter()
                .zip(counts)
                .map(|((_, name), value)| ((*name).to_owned(), value))
                .collect();
            for (name, value) in [
                ("hooks-reattached", repairs.hooks),
                ("pins-restored", repairs.pins),
            ] {
                let value = u64::try_from(value).unwrap_or(u64::MAX);
                let _ = status.counts.insert(name.to_owned(), value);
            }
            if status.controller_state.is_some() {
                status.controller_state = Some(match sync.phase {
                    Phase::Connected => ControllerState::Connected,
                    Phase::Connecting => ControllerState::Connecting,
                });
            }
        });
        super::notify(&[sd_notify::NotifyState::Watchdog]);
    }

    fn show_cgroups(&self) {
        let resolver = self.engine.resolver();
        self.published
            .set_cgroups(resolver.cgroup_paths(), resolver.inventory());
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the kernel keeps the low half too"
    )]
    fn generation(&mut self) -> u32 {
        self.engine.datapath().tables.generation() as u32
    }
}
