//! Changes of the policy directory by command, and the one that is on trial.
//!
//! While a change is on trial its documents are in force in place of the directory's: what the directory says is read
//! and kept until the trial ends. A policy of the controller is taken in meanwhile if it is valid with the former
//! documents too, so that a rollback never fails for want of a valid policy.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use ringfence_proto::limits;
use tokio::{
    sync::oneshot,
    task::{block_in_place, spawn_blocking},
};

use super::{
    clock,
    policy::Task,
    preview::preview,
    trial::{Trial, again, nanoseconds, remove, rolled_back, unwritten},
};
use crate::{
    api::PolicySource,
    change::{
        Applied, Caller, Command, Files, Pending, Preview, Refusal, Wanted, documents, install,
        journal::Journal,
    },
};

/// Time to write a change that is for good.
const FOR_GOOD: Duration = Duration::from_secs(60);

impl Task {
    /// Does what an operator asks.
    pub(super) async fn command(&mut self, command: Command) {
        // Whoever asked may be gone; what was done is done.
        match command {
            Command::Apply {
                wanted,
                confirm,
                by,
                reply,
            } => drop(reply.send(self.change(wanted, confirm, by).await)),
            Command::Preview { wanted, reply } => self.foresee(wanted, reply).await,
            Command::Confirm { by, reply } => drop(reply.send(self.confirm(by).await)),
            Command::Rollback { reply } => drop(reply.send(self.undo().await)),
        }
    }

    /// Rolls back what nobody has confirmed, and writes what is confirmed.
    pub(super) async fn time_is_up(&mut self) {
        if self.trial.as_ref().is_some_and(Trial::is_confirmed) {
            return self.write_confirmed().await;
        }
        let Some(pending) = self.trial.as_ref().map(Trial::pending) else {
            return;
        };
        let note = rolled_back(&pending, "nobody confirmed it in time");
        // Shown as soon as the trial is not.
        self.note = Some(note.clone());
        if self.roll_back().await.is_ok() {
            tracing::warn!(note, "policy");
            self.metrics.policy_rolled_back();
        } else {
            self.note = None;
        }
    }

    /// Shows the trial, or that there is none.
    pub(super) fn show_trial(&self) {
        let trial = self.trial.as_ref().filter(|trial| !trial.is_confirmed());
        let pending = trial.map(Trial::pending);
        self.metrics.policy_change_pending(pending.is_some());
        self.published
            .update_status(|status| status.pending = pending);
    }

    async fn change(
        &mut self,
        wanted: Wanted,
        confirm: Option<Duration>,
        by: Caller,
    ) -> Result<Applied, Refusal> {
        if let Some(trial) = &self.trial {
            if trial.is_confirmed() {
                return Err(confirmed());
            }
            let pending = trial.pending();
            return Err(Refusal::State(format!(
                "a change of user {} waits to be confirmed, {} s are left; `ringfence policy confirm` or `ringfence policy \
                 rollback` first",
                pending.uid,
                pending.seconds_left(clock::boot_now_ns())
            )));
        }
        let directory = self.policy_dir.clone();
        block_in_place(|| install::check(&directory)).map_err(state)?;
        let (before, after) = self.target(wanted)?;
        let local = documents(&directory, &after);
        if after == before && local == self.engine.local() {
            return Ok(Applied {
                generation: self.generation(),
                unchanged: true,
                warnings: self.engine.warnings(),
                pending: None,
            });
        }
        let until = clock::boot_now_ns().saturating_add(nanoseconds(confirm.unwrap_or(FOR_GOOD)));
        let journal = Journal::new(before, after, by.uid, until);
        block_in_place(|| journal.save(self.engine.state_dir())).map_err(state)?;
        self.trial = Some(Trial {
            former: self.engine.local().to_vec(),
            connection: Some(by.connection),
            due_ns: until,
            journal,
        });
        let refused = self.refusals.files.take();
        let controller = self.engine.controller().cloned();
        let source = self.local_source();
        if let Err(error) = self.apply(controller, local, source).await {
            self.trial = None;
            self.refusals.files = refused;
            remove(self.engine.state_dir());
            return Err(Refusal::Policy(error));
        }
        self.note = None;
        tracing::info!(
            uid = by.uid,
            on_trial = confirm.is_some(),
            "policy applied by command"
        );
        if confirm.is_none()
            && let Err(refusal) = self.keep().await
        {
            let undone = self.roll_back().await;
            return Err(undone.err().unwrap_or(refusal));
        }
        self.refusals.show(&self.published, &self.metrics);
        self.show_trial();
        Ok(Applied {
            generation: self.generation(),
            unchanged: false,
            warnings: self.engine.warnings(),
            pending: self.trial.as_ref().map(Trial::pending),
        })
    }

    async fn confirm(&mut self, by: Caller) -> Result<Pending, Refusal> {
        let trial = self.trial.as_ref().ok_or_else(nothing)?;
        if trial.is_confirmed() {
            return Err(confirmed());
        }
        if trial.connection == Some(by.connection) {
            return Err(Refusal::State(
                "a change is confirmed over another connection than it was applied; run `ringfence policy confirm`"
                    .to_owned(),
            ));
        }
        if trial.journal.is_over(clock::boot_now_ns()) {
            self.time_is_up().await;
            return Err(nothing());
        }
        let pending = trial.pending();
        self.keep().await?;
        tracing::info!(uid = by.uid, "policy confirmed");
        Ok(pending)
    }

    async fn undo(&mut self) -> Result<Pending, Refusal> {
        let pending = self
            .trial
            .as_ref()
            .map(Trial::pending)
            .ok_or_else(nothing)?;
        if self.trial.as_ref().is_some_and(Trial::is_confirmed) {
            self.drop_confirmed().await?;
        } else {
            self.roll_back().await?;
        }
        tracing::info!("policy rolled back by command");
        Ok(pending)
    }

    /// Writes the change on trial into the directory; the trial ends.
    async fn keep(&mut self) -> Result<(), Refusal> {
        let Some(trial) = &mut self.trial else {
            return Err(nothing());
        };
        let (state_dir, directory) = (self.engine.state_dir(), self.policy_dir.as_path());
        block_in_place(|| {
            let Journal { before, after, .. } = &trial.journal;
            install::unchanged(directory, before, after).map_err(state)?;
            trial.journal.confirmed = true;
            let written = trial.journal.save(state_dir).map_err(state).and_then(|()| {
                let Journal { before, after, .. } = &trial.journal;
                install::install(directory, before, after).map_err(state)
            });
            let Err(refusal) = written else {
                return Ok(());
            };
            trial.journal.confirmed = false;
            if let Err(error) = trial.journal.save(state_dir) {
                // On disk it may be confirmed, and the next start would take it for that.
                tracing::error!(%error, "a change that could not be written is on trial no more");
                trial.journal.confirmed = true;
                trial.due_ns = again();
                let (Refusal::State(error) | Refusal::Policy(error)) = &refusal;
                self.note = Some(unwritten(error));
            }
            Err(refusal)
        })?;
        self.note = None;
        self.end_trial().await;
        Ok(())
    }

    /// From now on the directory counts; what is in force stays where that is refused.
    pub(super) async fn end_trial(&mut self) {
        self.trial = None;
        block_in_place(|| self.engine.save());
        remove(self.engine.state_dir());
        self.read_files(true).await;
        self.show_trial();
    }

    /// Puts the former policy back into force; the trial ends, or is tried to be ended again.
    pub(super) async fn roll_back(&mut self) -> Result<(), Refusal> {
        let Some(mut trial) = self.trial.take() else {
            return Ok(());
        };
        // First, so that a start from here on begins with the former policy.
        remove(self.engine.state_dir());
        let controller = self.engine.controller().cloned();
        let (former, source) = (trial.former.clone(), self.local_source());
        let began = Instant::now();
        let result = block_in_place(|| self.engine.apply_again(controller, former, source));
        if let Err(error) = result {
            let error = format!("the former policy can't be put back into force: {error}");
            trial.due_ns = again();
            self.trial = Some(trial);
            self.refusals.files = Some(error.clone());
            self.refusals.show(&self.published, &self.metrics);
            return Err(Refusal::State(error));
        }
        self.refusals.renewal = None;
        self.applied(began.elapsed()).await;
        block_in_place(|| self.engine.save());
        // What it says meanwhile.
        self.read_files(true).await;
        self.show_trial();
        Ok(())
    }

    /// Answers what a change would do, outside of this task as far as it takes time.
    async fn foresee(&mut self, wanted: Wanted, reply: oneshot::Sender<Result<Preview, Refusal>>) {
        let (_, after) = match self.target(wanted) {
            Ok(target) => target,
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        let Ok(live) = self.flows.live().await else {
            return;
        };
        let tgids: BTreeSet<u32> = live.iter().map(|flow| flow.owner.tgid).collect();
        let local = documents(&self.policy_dir, &after);
        let proposal = match block_in_place(|| self.engine.propose(&local, &tgids)) {
            Ok(proposal) => proposal,
            Err(error) => return drop(reply.send(Err(Refusal::Policy(error)))),
        };
        let (spared, endpoints) = (self.spared.clone(), self.endpoints.clone());
        let generation = self.generation();
        drop(tokio::spawn(async move {
            let Some(look) = endpoints.look().await else {
                let busy = "too many ask for the listeners already; try again".to_owned();
                return drop(reply.send(Err(Refusal::State(busy))));
            };
            let judged = spawn_blocking(move || {
                let now = clock::boot_now_ns();
                preview(proposal, &live, &look.endpoints, &spared, now)
            });
            if let Ok(judged) = judged.await {
                drop(reply.send(Ok(Preview {
                    generation,
                    ..judged
                })));
            }
        }));
    }

    /// What the directory holds, and what it is to hold.
    fn target(&self, wanted: Wanted) -> Result<(Files, Files), Refusal> {
        let before = block_in_place(|| install::held(&self.policy_dir)).map_err(state)?;
        let after = wanted.beside(&before);
        let bytes: usize = after.values().map(String::len).sum();
        if after.is_empty() {
            return Err(Refusal::Policy(
                "there is no document; for an empty policy, apply an empty .toml file".to_owned(),
            ));
        }
        if bytes > limits::MAX_UPDATE_BYTES || after.len() > limits::MAX_DOCUMENTS {
            return Err(Refusal::Policy(format!(
                "the policy directory would hold {bytes} bytes in {} documents; at most {} bytes in {} are taken",
                after.len(),
                limits::MAX_UPDATE_BYTES,
                limits::MAX_DOCUMENTS
            )));
        }
        Ok((before, after))
    }

    fn local_source(&self) -> PolicySource {
        match self.engine.controller() {
            Some(_) => self.engine.source(),
            None => PolicySource::Files,
        }
    }
}

fn confirmed() -> Refusal {
    Refusal::State(
        "a change that is confirmed already is not in the policy directory yet: see the warnings of `ringfence status`, or drop \
         it (`ringfence policy rollback`)"
            .to_owned(),
    )
}

pub(super) fn nothing() -> Refusal {
    Refusal::State("no change waits to be confirmed; see `ringfence policy list`".to_owned())
}

pub(super) fn state(error: impl std::fmt::Display) -> Refusal {
    Refusal::State(error.to_string())
}
