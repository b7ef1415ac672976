//! The change that is on trial: what is known of it, and what a start makes of it.

use std::{fmt::Display, path::Path, time::Duration};

use ringfence_policy::model::Document;
use tokio::time::sleep;

use super::clock;
use crate::change::{
    Pending, files,
    install::{self, InstallError},
    journal::{self, Fate, Journal},
};

/// How often a clock is looked at that goes on while the host sleeps.
const LOOK: Duration = Duration::from_secs(1);
/// How often what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// A change that is in force and not confirmed.
#[derive(Debug)]
pub struct Trial {
    pub(super) journal: Journal,
    /// The documents of the directory that were in force before.
    pub(super) former: Vec<Document>,
    /// The connection that applied it; not known after a restart.
    pub(super) connection: Option<u64>,
    /// When it is rolled back, or that is tried again (`CLOCK_BOOTTIME`, nanoseconds).
    pub(super) due_ns: u64,
}

/// What a start makes of the change that was on trial.
#[derive(Debug, Default)]
pub struct Found {
    /// It goes on, or is confirmed and not in the directory yet.
    pub resumed: Option<Journal>,
    /// What became of it otherwise.
    pub note: Option<String>,
}

/// Looks for a change on trial, and ends it where it is over or confirmed.
#[must_use]
pub fn at_start(state_dir: &Path, policy_dir: &Path) -> Found {
    let (fate, journal) = match journal::load(state_dir) {
        Ok(None) => return Found::default(),
        Ok(Some(journal)) => {
            let fate = journal.fate(&journal::boot_id(), clock::boot_now_ns());
            (fate, journal)
        }
        Err(error) => {
            remove(state_dir);
            return Found {
                note: Some(error.to_string()),
                resumed: None,
            };
        }
    };
    let note = match fate {
        Fate::Resume => {
            return Found {
                resumed: Some(journal),
                note: None,
            };
        }
        Fate::Install => match install::finish(policy_dir, &journal.before, &journal.after) {
            Ok(()) => None,
            Err(error @ InstallError::Overtaken { .. }) => Some(error.to_string()),
            Err(error) => {
                return Found {
                    note: Some(unwritten(&error)),
                    resumed: Some(journal),
                };
            }
        },
        Fate::Expired => Some(rolled_back(
            &journal.pending(),
            "its time came while no agent ran",
        )),
        Fate::OtherBoot => Some(rolled_back(
            &journal.pending(),
            "the host was restarted before it was confirmed",
        )),
    };
    remove(state_dir);
    Found {
        note,
        resumed: None,
    }
}

/// Until that time.
pub async fn due(at_ns: Option<u64>) {
    let Some(at_ns) = at_ns else {
        return std::future::pending().await;
    };
    loop {
        let left = Duration::from_nanos(at_ns.saturating_sub(clock::boot_now_ns()));
        if left.is_zero() {
            return;
        }
        sleep(left.min(LOOK)).await;
    }
}

impl Trial {
    /// Goes on with what a start has found, where these documents were in force before.
    #[must_use]
    pub fn resume(journal: Journal, former: Vec<Document>) -> Self {
        Self {
            due_ns: if journal.confirmed {
                again()
            } else {
                journal.pending().until_ns
            },
            connection: None,
            journal,
            former,
        }
    }

    /// When it is rolled back, or where it is confirmed, written again.
    #[must_use]
    pub const fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// The documents of the directory that a rollback returns to.
    #[must_use]
    pub fn former(&self) -> &[Document] {
        &self.former
    }

    /// As it is told.
    #[must_use]
    pub fn pending(&self) -> Pending {
        self.journal.pending()
    }

    /// Whether nobody is waited for: only the directory does not hold it yet.
    #[must_use]
    pub const fn is_confirmed(&self) -> bool {
        self.journal.confirmed
    }

    /// Whether the directory is not as it was.
    #[must_use]
    pub fn is_overtaken(&self, found: &[Document]) -> bool {
        !self.is_confirmed() && files(found) != self.journal.before
    }
}

/// Removes the journal; what stands in the way is logged.
pub(super) fn remove(state_dir: &Path) {
    if let Err(error) = journal::remove(state_dir) {
        tracing::error!(%error, "policy");
    }
}

/// That a confirmed change is in force and not in the directory, in a sentence.
pub(super) fn unwritten(error: &impl Display) -> String {
    format!(
        "a confirmed change of policy is in force, and not in the policy directory: {error}; it is tried again every second \
         until `ringfence policy rollback` drops it"
    )
}

/// When something that failed is tried again.
pub(super) fn again() -> u64 {
    clock::boot_now_ns().saturating_add(nanoseconds(AGAIN))
}

/// What became of a change, in a sentence.
pub(super) fn rolled_back(pending: &Pending, why: &str) -> String {
    let names: Vec<&str> = pending
        .changed
        .iter()
        .chain(&pending.removed)
        .map(String::as_str)
        .collect();
    format!(
        "the change of {} by user {} was rolled back: {why}",
        names.join(", "),
        pending.uid
    )
}

/// A time as the kernel counts it.
pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
