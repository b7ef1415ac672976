//! Agent configuration: one TOML file in, one valid [`Config`] out.
//!
//! Owns the names and defaults of all keys. Serde and TOML types never leave this folder; whoever holds
//! a [`Config`] never checks again. Every problem of a file is reported at once, with its line.

mod error;
mod failsafe;
mod read;
mod refusal;
mod sections;
mod size;
#[cfg(test)]
mod tests;
mod values;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ringfence_common::abi::FailsafeEntry;

use crate::{runtime, sync};

pub use error::{ConfigError, Problem};
pub use refusal::{LocalRefusal, Refusal, RemoteRefusal};

/// Where the agent looks for its configuration.
pub const DEFAULT_PATH: &str = "/etc/ringfence/agent.toml";
/// Unix socket of the agent's gRPC interface.
pub const DEFAULT_SOCKET: &str = "/run/ringfence/agent.sock";

/// Valid configuration of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What is guarded, and how.
    pub agent: Agent,
    /// Where policy comes from besides the policy directory; `None` = from nowhere else.
    pub controller: Option<sync::Settings>,
    /// Path of the unix socket that gRPC is served on.
    pub api_socket: PathBuf,
    /// Address that Prometheus metrics are served on; `None` = not served.
    pub metrics: Option<SocketAddr>,
    /// Flow records.
    pub flows: Flows,
    /// What who is refused hears.
    pub refusal: Refusal,
    /// Container runtimes that are asked what a container is.
    pub containers: runtime::Settings,
    /// Inbound flows that no policy can cut, at most `MAX_FAILSAFE`.
    pub failsafe: Vec<FailsafeEntry>,
    /// The agent's own log.
    pub log: Log,
    /// Settings that are valid but deserve a second look, one sentence each.
    pub warnings: Vec<String>,
}

/// Section `[agent]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// The cgroup v2 directory to guard.
    pub cgroup_root: CgroupRoot,
    /// Whether denied traffic is stopped.
    pub mode: Mode,
    /// What holds for a workload that no policy selects.
    pub unselected: Unselected,
    /// Directory of policy documents (`*.toml`).
    pub policy_dir: PathBuf,
    /// Directory for state that outlives the agent.
    pub state_dir: PathBuf,
    /// Directory below a BPF file system for pins.
    pub pin_dir: PathBuf,
    /// How long packets of what the agent has not judged yet are held, before they are refused.
    pub pending: Duration,
    /// Executables larger than this are not hashed, bytes.
    pub hash_limit: u64,
    /// For one user, or root in one cgroup, no more is hashed, bytes a second, once `hash_limit` bytes were.
    pub hash_rate: u64,
}

/// The cgroup v2 directory to guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupRoot {
    /// The root of the cgroup2 mount, found in the mount table.
    Auto,
    /// This directory.
    Path(PathBuf),
}

/// Whether denied traffic is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Denied traffic is stopped.
    Enforce,
    /// Nothing is ever stopped; records say what would have been.
    Draft,
}

impl Mode {
    /// Its name in the configuration and in the status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Draft => "draft",
        }
    }
}

/// What holds for a workload that no policy selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unselected {
    /// It may do everything.
    Allow,
    /// It may do nothing.
    Deny,
}

/// Section `[flows]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flows {
    /// Records kept for `observe`.
    pub capacity: usize,
    /// Bytes of the kernel's ring buffer: a power of two and whole pages.
    pub events_buffer: u32,
    /// Entries of the kernel's map of datagram flows.
    pub flow_entries: u32,
}

/// Section `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Lowest level that is written.
    pub level: tracing::Level,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Reads and checks the configuration at `path`. Relative paths inside it count from its directory.
///
/// # Errors
/// The file can't be read, or it has problems: all of them are reported.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &text)
}

/// Checks the text of a configuration that stands at `path`.
///
/// # Errors
/// The text has problems: all of them are reported.
pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let base = absolute.parent().unwrap_or(Path::new("/"));
    let mut document = read::Document::parse(text);
    let config = sections::config(&mut document, base);
    let problems = document.finish();
    if problems.is_empty() {
        return Ok(config);
    }
    Err(ConfigError::Invalid {
        path: path.to_owned(),
        problems,
    })
}
