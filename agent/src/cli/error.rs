//! What can go wrong with a command, what the user must do, and the exit code.

use std::{
    io,
    path::{Path, PathBuf},
};

use ringfence_documents::ReadError;
use thiserror::Error;

use super::client::ANSWER;

use crate::{config::ConfigError, datapath::detach::DetachError};

/// A command failed.
#[derive(Debug, Error)]
pub enum CliError {
    /// Nobody answers on the socket.
    #[error("no agent answers on {}: {source}; {}", socket.display(), remedy(source))]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent accepts and does not answer.
    #[error(
        "the agent does not answer within {} s: it is just starting, stopped, or hangs; see `journalctl -u ringfence`",
        ANSWER.as_secs()
    )]
    Silent,
    /// The agent went away while it answered.
    #[error("the connection to the agent broke: {0}; see `systemctl status ringfence`")]
    Broken(String),
    /// The agent refused the request.
    #[error("{0}")]
    Refused(String),
    /// What was asked for is not there, or is no question.
    #[error("{0}")]
    Usage(String),
    /// A change would cut what is live; by what was written already.
    #[error("the change would cut what is live")]
    Cuts,
    /// The answer can't be written.
    #[error("the answer can't be written: {0}")]
    Output(#[source] io::Error),
    /// Policy documents can't be read.
    #[error(transparent)]
    Documents(#[from] ReadError),
    /// The flow that was asked about is denied; by what was written already.
    #[error("the flow is denied")]
    Denied,
    /// The policy is not valid; the reasons were written already.
    #[error("the policy is not valid")]
    PolicyInvalid,
    /// Programs are not attached; the status was written already.
    #[error("the host is not guarded")]
    NotGuarded,
    /// The configuration is not valid.
    #[error(transparent)]
    Config(ConfigError),
    /// The configuration that should name the pins is not valid.
    #[error("{0}\nwithout it: `ringfence detach --pin-dir DIR`")]
    DetachConfig(#[source] ConfigError),
    /// Enforcement can't be ended.
    #[error(transparent)]
    Detach(#[from] DetachError),
    /// The configuration names what this host does not have.
    #[error("{}", lines(path, problems))]
    Unusable {
        /// The configuration.
        path: PathBuf,
        /// All of its problems, never empty.
        problems: Vec<String>,
    },
}

fn lines(path: &Path, problems: &[String]) -> String {
    let line = |problem: &String| format!("{}: {problem}", path.display());
    let lines: Vec<String> = problems.iter().map(line).collect();
    lines.join("\n")
}

impl CliError {
    /// Exit code, as `--help` documents it.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Cuts => 5,
            Self::NotGuarded => 4,
            Self::Unreachable { .. } | Self::Silent | Self::Broken(_) => 3,
            // Nothing of that name, or nothing that may be read.
            Self::Usage(_)
            | Self::Documents(ReadError::Missing(_) | ReadError::Unreadable { .. }) => 2,
            Self::Documents(
                ReadError::Empty(_) | ReadError::Document { .. } | ReadError::TooLarge(_),
            )
            | Self::Refused(_)
            | Self::Output(_)
            | Self::Denied
            | Self::PolicyInvalid
            | Self::Config(_)
            | Self::DetachConfig(_)
            | Self::Detach(_)
            | Self::Unusable { .. } => 1,
        }
    }

    /// What to tell the user; `None` if it was told already.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::PolicyInvalid | Self::Denied | Self::NotGuarded | Self::Cuts => None,
            Self::Unreachable { .. }
            | Self::Silent
            | Self::Broken(_)
            | Self::Refused(_)
            | Self::Usage(_)
            | Self::Output(_)
            | Self::Documents(_)
            | Self::Config(_)
            | Self::DetachConfig(_)
            | Self::Detach(_)
            | Self::Unusable { .. } => Some(self.to_string()),
        }
    }

    /// The reader of the output has gone (`ringfence observe | head`), which is not an error.
    #[must_use]
    pub fn reader_is_gone(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

fn remedy(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::PermissionDenied {
        "run the command as root (sudo)"
    } else {
        "start it (systemctl start ringfence), or name its socket with --socket"
    }
}

impl From<tonic::Status> for CliError {
    fn from(status: tonic::Status) -> Self {
        let text = super::words::clean(status.message());
        // As tonic words it (`TimeoutExpired`).
        if status.code() == tonic::Code::Cancelled && text == "Timeout expired" {
            return Self::Silent;
        }
        // What names nothing, or can't be read: the question is wrong, not the answer.
        if matches!(
            status.code(),
            tonic::Code::InvalidArgument | tonic::Code::NotFound
        ) {
            return Self::Usage(super::words::clean_lines(status.message()));
        }
        // A connection that breaks off comes as `Unknown`; the agent itself never answers so.
        if matches!(
            status.code(),
            tonic::Code::Unavailable | tonic::Code::Cancelled | tonic::Code::Unknown
        ) {
            Self::Broken(text)
        } else {
            // Reasons may stand one a line.
            Self::Refused(super::words::clean_lines(status.message()))
        }
    }
}
