//! Changes of the policy directory by command: on trial until they are confirmed, or for good.
//!
//! The directory holds the former policy until a change is confirmed. A change on trial is in force beside it and
//! in a [`journal`] in the state directory; whatever ends the trial otherwise (its time, a command, a reboot) leaves
//! the directory as it is, and what it says is in force again. [`install`] writes a confirmed change. The policy
//! task owns the trial. Time is `CLOCK_BOOTTIME`, which nobody can set.

pub mod install;
pub mod journal;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, SystemTime},
};

use ringfence_policy::model::Document;
use ringfence_proto::v1;
use tokio::sync::oneshot;

use crate::{endpoints::Endpoint, flow::Live};

/// Texts by the names of their files.
pub type Files = BTreeMap<String, String>;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Connection, by a number that is used once.
    pub connection: u64,
}

/// Documents that are to be in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// By the names of their files in the policy directory.
    pub files: Files,
    /// Whether they are all, or stand beside those that are not named.
    pub prune: bool,
}

impl Wanted {
    /// What the directory is to hold, where it holds `before`.
    #[must_use]
    pub fn beside(self, before: &Files) -> Files {
        if self.prune {
            return self.files;
        }
        let mut all = before.clone();
        all.extend(self.files);
        all
    }
}

/// What the policy task is asked; it answers when what it did is in force.
#[derive(Debug)]
pub enum Command {
    /// Puts documents into force.
    Apply {
        /// The documents.
        wanted: Wanted,
        /// How long the change waits to be confirmed; `None`: it is for good.
        confirm: Option<Duration>,
        /// Who asks.
        by: Caller,
        /// The answer.
        reply: oneshot::Sender<Result<Applied, Refusal>>,
    },
    /// Tells what the same would do.
    Preview {
        /// The documents.
        wanted: Wanted,
        /// The answer.
        reply: oneshot::Sender<Result<Preview, Refusal>>,
    },
    /// Keeps the change on trial.
    Confirm {
        /// Who asks.
        by: Caller,
        /// The answer.
        reply: oneshot::Sender<Result<Pending, Refusal>>,
    },
    /// Ends the trial with the former policy.
    Rollback {
        /// The answer.
        reply: oneshot::Sender<Result<Pending, Refusal>>,
    },
}

/// A change is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Generation in force.
    pub generation: u32,
    /// Nothing was to be done.
    pub unchanged: bool,
    /// What is valid but hardly meant.
    pub warnings: Vec<String>,
    /// The trial.
    pub pending: Option<Pending>,
}

/// Why a change was not made; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The documents are not valid, or can't be enforced: every reason, one a line.
    Policy(String),
    /// It is not the moment.
    State(String),
}

/// A change that waits to be confirmed, as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// When it was applied.
    pub applied: SystemTime,
    /// When it is rolled back (`CLOCK_BOOTTIME`, nanoseconds).
    pub until_ns: u64,
    /// Who applied it.
    pub uid: u32,
    /// Files that it adds or replaces.
    pub changed: Vec<String>,
    /// Files that it removes.
    pub removed: Vec<String>,
}

impl Pending {
    /// Seconds until it is rolled back, rounded up.
    #[must_use]
    pub fn seconds_left(&self, boot_now_ns: u64) -> u32 {
        let left = Duration::from_nanos(self.until_ns.saturating_sub(boot_now_ns));
        let whole = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        u32::try_from(whole).unwrap_or(u32::MAX)
    }
}

/// What a change would do.
#[derive(Clone, Debug, Default)]
pub struct Preview {
    /// Generation in force, which stays.
    pub generation: u32,
    /// What is valid but hardly meant.
    pub warnings: Vec<String>,
    /// Workloads, policies and rules with the change.
    pub sizes: [usize; 3],
    /// Flows that were looked at.
    pub live: usize,
    /// Flows that would be cut.
    pub cut: Vec<Cut>,
    /// Listeners that could not be bound again.
    pub refused: Vec<Refused>,
    /// What the reader should know besides.
    pub notes: Vec<String>,
}

/// A live flow that would be cut, as one of its sockets sees it.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The flow.
    pub flow: Live,
    /// Workload or reserved identity that its socket's process would be of.
    pub workload: String,
    /// The same of the peer.
    pub peer: String,
    /// What would decide.
    pub decision: v1::Decision,
}

/// A listener that could not be bound again.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The listener.
    pub endpoint: Endpoint,
    /// What would decide.
    pub decision: v1::Decision,
}

/// Documents of a directory, which are named by their paths, by the names of their files.
#[must_use]
pub fn files(documents: &[Document]) -> Files {
    let one = |document: &Document| {
        let name = Path::new(&document.name).file_name()?;
        Some((
            name.to_string_lossy().into_owned(),
            document.text.to_string(),
        ))
    };
    documents.iter().filter_map(one).collect()
}

/// The documents of a directory that holds these files, named and ordered as a reader of it does.
#[must_use]
pub fn documents(directory: &Path, files: &Files) -> Vec<Document> {
    let one = |(name, text): (&String, &String)| Document {
        name: directory.join(name).display().to_string(),
        text: text.as_str().into(),
    };
    let mut documents: Vec<Document> = files.iter().map(one).collect();
    documents.sort_unstable();
    documents
}

/// Files that are added or replaced on the way from `before` to `after`, and those that are removed.
#[must_use]
pub fn difference(before: &Files, after: &Files) -> (Vec<String>, Vec<String>) {
    let changed = after
        .iter()
        .filter(|(name, text)| before.get(*name) != Some(text))
        .map(|(name, _)| name.clone())
        .collect();
    let removed = before
        .keys()
        .filter(|name| !after.contains_key(*name))
        .cloned()
        .collect();
    (changed, removed)
}
