//! Errors of the store.

use std::{io, path::PathBuf};

use ringfence_documents::ReadError;
use ringfence_policy::parse::Diagnostic;
use ringfence_proto::limits;
use thiserror::Error;

/// Why a policy is not served, or why the store cannot work at all.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The directory cannot be read as a whole.
    #[error("{0}; see [store] policy-dir")]
    Documents(#[from] ReadError),
    /// It is more than an agent takes.
    #[error(
        "the policy has {documents} documents and {bytes} bytes on the wire; agents take {max_documents} and {max_bytes}: \
         split the deployment",
        max_documents = limits::MAX_DOCUMENTS,
        max_bytes = limits::MAX_UPDATE_BYTES
    )]
    TooLarge {
        /// Number of documents.
        documents: usize,
        /// Size.
        bytes: usize,
    },
    /// The documents are invalid.
    #[error("{}", lines(.0))]
    Invalid(Vec<Diagnostic>),
    /// No number is left.
    #[error(
        "all {} identities were given out; split the deployment",
        limits::MAX_IDENTITIES
    )]
    NoIdentity,
    /// Another controller has the state directory.
    #[error("{file} is locked: another controller is running on this state directory; stop it, or use another one", file = .0.display())]
    Locked(PathBuf),
    /// The state file is damaged.
    #[error(
        "{file} is damaged ({reason}); restore it from the backup: without it, identities would be given out anew and every \
         agent would refuse them",
        file = .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The state directory cannot be used.
    #[error("cannot use {file}: {error}; check [store] state-dir, its permissions and its free space", file = .path.display())]
    State {
        /// Directory or file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// inotify is not to be had.
    #[error("cannot watch the policy directory: {0}; raise fs.inotify.max_user_instances")]
    Inotify(io::Error),
    /// A bug.
    #[error("reading the policy panicked: {0}; please report it with the log")]
    Panicked(tokio::task::JoinError),
}

fn lines(diagnostics: &[Diagnostic]) -> String {
    let lines: Vec<_> = diagnostics.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
