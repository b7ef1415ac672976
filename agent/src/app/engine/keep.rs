//! What is in force, on disk for the next start.

use super::{super::last_good, Engine};
use crate::sync::cache;

impl Engine {
    /// Keeps the policy in force on disk, so that the next start has it.
    pub fn save(&mut self) {
        let local =
            last_good::save(&self.state_dir, &self.local).map_err(|error| error.to_string());
        let controllers = self.keep_controllers();
        self.note_kept(local.and(controllers));
    }

    /// The same without the documents of the policy directory, which are on trial.
    pub fn save_controllers(&mut self) {
        let kept = self.keep_controllers();
        self.note_kept(kept);
    }

    /// Whether the disk does not hold what is in force.
    #[must_use]
    pub const fn is_unkept(&self) -> bool {
        self.unkept.is_some()
    }

    fn keep_controllers(&self) -> Result<(), String> {
        let Some(held) = &self.controller else {
            return Ok(());
        };
        cache::save(&self.state_dir, held).map_err(|error| error.to_string())
    }

    fn note_kept(&mut self, kept: Result<(), String>) {
        let unkept = kept.err();
        if let Some(error) = unkept.as_ref().filter(|_| unkept != self.unkept) {
            tracing::error!(error, "the policy in force is not kept on disk");
        }
        self.unkept = unkept;
    }
}
