//! Why a directory can't be read as a policy.

use std::{io, path::PathBuf};

use ringfence_proto::limits;
use thiserror::Error;

/// What is wrong, and what to do.
#[derive(Debug, Error)]
pub enum ReadError {
    /// There is no such directory.
    #[error(
        "{dir} does not exist; is it mounted? For an empty policy on purpose, make it and put an empty .toml file there",
        dir = .0.display()
    )]
    Missing(PathBuf),
    /// There is no document in it.
    #[error(
        "{dir} holds no .toml file; is it mounted? For an empty policy on purpose, put an empty .toml file there",
        dir = .0.display()
    )]
    Empty(PathBuf),
    /// Directory or document cannot be read.
    #[error("cannot read {file}: {error}; check its mount and its permissions", file = .path.display())]
    Unreadable {
        /// Directory or file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A document cannot be named or read as text.
    #[error("{file}: {reason}; rename or remove it", file = .path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// It is more than an agent takes.
    #[error(
        "{dir} holds more than {} documents or {} bytes of them; split the policy, or remove what is no policy",
        limits::MAX_DOCUMENTS,
        limits::MAX_UPDATE_BYTES,
        dir = .0.display()
    )]
    TooLarge(PathBuf),
}

impl ReadError {
    /// Whether there is nothing to read at all: what a mount that is not there looks like.
    #[must_use]
    pub const fn is_absence(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::Empty(_))
    }
}
