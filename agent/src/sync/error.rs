//! Errors of synchronisation.

use std::path::PathBuf;

use thiserror::Error;

/// Why [`run`](super::run) ended although nobody cancelled it.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SyncError {
    /// The receiver of updates, or of one answer, is gone.
    #[error("the policy task is gone; restart the agent, and report what it logged last")]
    PolicyTaskGone,
}

/// Why one attempt to synchronise ended; the next one follows.
#[derive(Debug, Error)]
pub(super) enum AttemptError {
    #[error("cannot read {file}: {error}; see [controller] in the agent's configuration", file = .path.display())]
    TlsFile {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error(
        "the certificates are unusable: {0}; [controller] needs PEM files: ca, cert with its chain, and its key"
    )]
    Certificates(String),
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("the controller closed the connection without an answer ({cause}); {hint}")]
    Unanswered { cause: String, hint: &'static str },
    #[error("no answer within {seconds} s")]
    TimedOut { seconds: u64 },
    #[error("the controller ended the stream: {0}")]
    Ended(String),
    #[error("the controller sent a message without an update")]
    Empty,
    #[error("{0} updates in a row were refused")]
    TooManyRefusals(u32),
    /// Not a failure: the policy refused before is in force, and the next stream says so.
    #[error("generation {0} came into force after it was refused")]
    Adopted(u64),
    #[error(transparent)]
    Sync(#[from] SyncError),
}
