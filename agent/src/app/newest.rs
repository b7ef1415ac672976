//! What comes anew from the policy directory and from the controller.
//!
//! Either can be valid only together with the newest of the other. So both are tried together first, then
//! what is new with what is in force; what is refused is kept, and tried again when the other changes.

use ringfence_policy::model::Document;
use tokio::task::block_in_place;

use super::{
    documents,
    policy::Task,
    refusals::{Refusals, RefusedUpdate},
};
use crate::{
    api::PolicySource,
    sync::{Held, Update},
};

impl Task {
    /// Answers an update of the controller.
    pub(super) async fn take_update(&mut self, update: Update) {
        let held = Held {
            generation: update.generation,
            documents: update.documents,
            identities: update.identities,
        };
        let result = self.try_update(held).await;
        self.refusals.show(&self.published, &self.metrics);
        // The stream may be gone; the policy is in force all the same.
        let _ = update.reply.send(result);
    }

    /// Reads the policy directory; what it said before is tried again only if `again`.
    pub(super) async fn read_files(&mut self, again: bool) {
        let guarded = !self.engine.local().is_empty();
        let found = block_in_place(|| documents::read(&self.policy_dir, guarded));
        if found == self.found && !again {
            return;
        }
        self.found = found;
        if self.trial.is_some() {
            tracing::info!("a change is on trial: the policy directory counts when that ends");
            return;
        }
        match self.found.clone() {
            Ok(wanted) => self.try_files(wanted).await,
            Err(error) => self.refusals.files = Some(error),
        }
        self.refusals.show(&self.published, &self.metrics);
    }

    async fn try_update(&mut self, held: Held) -> Result<(), String> {
        let local = self.engine.local().to_vec();
        if let Some(trial) = &self.trial
            && let Err(error) = block_in_place(|| self.engine.is_valid(Some(&held), trial.former()))
        {
            let error = format!("not valid with the policy that a rollback returns to: {error}");
            self.refusals.update = Some(RefusedUpdate {
                held,
                error: error.clone(),
            });
            return Err(error);
        }
        let waiting = self.found.clone().ok();
        let waiting = waiting.filter(|found| self.trial.is_none() && *found != local);
        let mut together = None;
        if let Some(waiting) = waiting {
            let result = self
                .apply(Some(held.clone()), waiting, PolicySource::Controller)
                .await;
            let Err(error) = result else {
                self.refusals = Refusals::default();
                return Ok(());
            };
            together = Some(error);
        }
        let result = self
            .apply(Some(held.clone()), local, PolicySource::Controller)
            .await;
        match &result {
            Ok(()) => {
                self.refusals.update = None;
                self.refusals.files = together.or(self.refusals.files.take());
            }
            Err(error) => {
                let error = error.clone();
                self.refusals.update = Some(RefusedUpdate { held, error });
            }
        }
        result
    }

    async fn try_files(&mut self, wanted: Vec<Document>) {
        let mut together = None;
        if let Some(refused) = self.refusals.update.take() {
            let held = Some(refused.held.clone());
            let result = self
                .apply(held, wanted.clone(), PolicySource::Controller)
                .await;
            let Err(error) = result else {
                self.refusals = Refusals::default();
                // The controller was told that it is refused.
                drop(self.adopted.send_replace(Some(refused.held)));
                return;
            };
            together = Some(error);
            self.refusals.update = Some(refused);
        }
        let mut alone = Ok(());
        if wanted != self.engine.local() {
            let controller = self.engine.controller().cloned();
            let source = match controller {
                Some(_) => self.engine.source(),
                None => PolicySource::Files,
            };
            alone = self.apply(controller, wanted, source).await;
        }
        match alone {
            Ok(()) => {
                self.refusals.files = None;
                if let (Some(refused), Some(error)) = (&mut self.refusals.update, together) {
                    refused.error = error;
                }
            }
            Err(error) => self.refusals.files = Some(error),
        }
    }
}
