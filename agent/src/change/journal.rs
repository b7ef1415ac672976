//! The change on trial on disk: `policy-change.journal` in the state directory, [sealed](crate::sealed).
//!
//! Written before the change is in force, so that an agent that is killed at any moment finds what is on trial and
//! until when. A trial ends with its boot: what an operator has not confirmed is not in force after a restart of the
//! host, like an unsaved configuration of a router.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ringfence_proto::limits;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Files, Pending, difference};
use crate::sealed::{Seal, SealError};

const SEAL: Seal = Seal {
    file: "policy-change.journal",
    header: "ringfence-policy-change 1",
};

/// Where the kernel names its boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What is wrong with the journal.
#[derive(Debug, Error)]
pub enum JournalError {
    /// It can't be read, or is damaged.
    #[error("{0}; the change that was on trial is rolled back")]
    Unusable(#[source] SealError),
    /// It can't be written.
    #[error("{0}; nothing was changed: check the state directory and its free space")]
    NotKept(#[source] SealError),
    /// It can't be removed.
    #[error("cannot remove {}: {error}; remove it, or a change that is over comes back", path.display())]
    NotRemoved {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A change, from its application to the moment when the directory holds it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// It is confirmed, and being written to the directory.
    pub confirmed: bool,
    /// Boot that it belongs to.
    boot_id: String,
    /// When it is rolled back (`CLOCK_BOOTTIME` of that boot, nanoseconds).
    until_ns: u64,
    /// When it was applied: seconds since 1970, to be shown only.
    applied: u64,
    /// Who applied it.
    uid: u32,
    /// What the directory held then.
    pub before: Files,
    /// What it is to hold.
    pub after: Files,
}

/// What becomes of a journal that a start finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The directory is to hold it.
    Install,
    /// The trial goes on.
    Resume,
    /// Its time came while no agent ran.
    Expired,
    /// The host was restarted.
    OtherBoot,
}

impl Journal {
    /// Of a change that is applied now.
    #[must_use]
    pub fn new(before: Files, after: Files, uid: u32, until_ns: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            confirmed: false,
            boot_id: boot_id(),
            until_ns,
            applied: now.unwrap_or_default().as_secs(),
            uid,
            before,
            after,
        }
    }

    /// As it is told.
    #[must_use]
    pub fn pending(&self) -> Pending {
        let (changed, removed) = difference(&self.before, &self.after);
        Pending {
            applied: UNIX_EPOCH + Duration::from_secs(self.applied),
            until_ns: self.until_ns,
            uid: self.uid,
            changed,
            removed,
        }
    }

    /// What a start makes of it.
    #[must_use]
    pub fn fate(&self, boot_id: &str, boot_now_ns: u64) -> Fate {
        if self.confirmed {
            return Fate::Install;
        }
        if self.boot_id.is_empty() || self.boot_id != boot_id {
            return Fate::OtherBoot;
        }
        if self.is_over(boot_now_ns) {
            return Fate::Expired;
        }
        Fate::Resume
    }

    /// Whether its time has come.
    #[must_use]
    pub const fn is_over(&self, boot_now_ns: u64) -> bool {
        self.until_ns <= boot_now_ns
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`JournalError::NotKept`]; what was there before is still whole.
    pub fn save(&self, state_dir: &Path) -> Result<(), JournalError> {
        SEAL.save(state_dir, self).map_err(JournalError::NotKept)
    }
}

/// What is there; `None` when nothing is.
///
/// # Errors
/// [`JournalError::Unusable`].
pub fn load(state_dir: &Path) -> Result<Option<Journal>, JournalError> {
    SEAL.load(state_dir, judge).map_err(JournalError::Unusable)
}

/// Removes it.
///
/// # Errors
/// [`JournalError::NotRemoved`].
pub fn remove(state_dir: &Path) -> Result<(), JournalError> {
    let path = state_dir.join(SEAL.file);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(JournalError::NotRemoved { path, error })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The boot of this moment; empty where it can't be read, which equals no boot.
#[must_use]
pub fn boot_id() -> String {
    let text = fs::read_to_string(BOOT_ID).unwrap_or_default();
    text.trim().to_owned()
}

/// Names become paths: none may lead out of the directory.
fn judge(journal: Journal) -> Result<Journal, String> {
    let names = journal.before.keys().chain(journal.after.keys());
    match names
        .into_iter()
        .find(|name| !limits::is_document_name(name))
    {
        Some(name) => Err(format!("{name:?} is no name of a document")),
        None => Ok(journal),
    }
}
