//! A change that is confirmed, in force and not in the policy directory yet.
//!
//! It is written again every second, until it is there, an operator drops it, or somebody else has changed what it was to
//! write: then the directory is his. It is dropped only where the directory holds nothing of it, as a part of two policies
//! can allow what neither does.

use tokio::task::block_in_place;

use super::{
    changes::{nothing, state},
    policy::Task,
    trial::{again, unwritten},
};
use crate::change::{
    Refusal,
    install::{self, InstallError},
    journal::{self, Journal},
};

impl Task {
    /// Writes it once more.
    pub(super) async fn write_confirmed(&mut self) {
        let Some(trial) = &mut self.trial else {
            return;
        };
        trial.due_ns = again();
        let Journal { before, after, .. } = &trial.journal;
        match block_in_place(|| install::finish(&self.policy_dir, before, after)) {
            Ok(()) => {
                tracing::info!("the confirmed change is in the policy directory");
                self.note = None;
            }
            Err(error @ InstallError::Overtaken { .. }) => {
                tracing::warn!(%error, "policy");
                self.note = Some(error.to_string());
            }
            Err(error) => {
                self.note = Some(unwritten(&error));
                return;
            }
        }
        self.end_trial().await;
    }

    /// Drops it: what it has written is put back, and the directory counts as it stands then.
    pub(super) async fn drop_confirmed(&mut self) -> Result<(), Refusal> {
        let Some(trial) = &mut self.trial else {
            return Err(nothing());
        };
        let Journal { before, after, .. } = &trial.journal;
        // Before the former policy is in force, and so that a start in between writes the change again.
        block_in_place(|| install::put_back(&self.policy_dir, before, after)).map_err(state)?;
        journal::remove(self.engine.state_dir()).map_err(state)?;
        trial.journal.confirmed = false;
        self.note = None;
        self.roll_back().await
    }
}
