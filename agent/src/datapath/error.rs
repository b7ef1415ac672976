//! What can go wrong between the agent and the kernel.

use std::{io, path::PathBuf};

/// Error of the datapath.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The object does not load.
    #[error(
        "the kernel refuses the programs: {0}; is the kernel at least 5.15, with CONFIG_CGROUP_BPF and CONFIG_DEBUG_INFO_BTF?"
    )]
    Load(#[from] aya::EbpfError),
    /// One program does not load.
    #[error(
        "the kernel refuses program {name}: {reason}; please report it with the kernel's version"
    )]
    Program {
        /// Name of the program.
        name: &'static str,
        /// What the verifier said.
        reason: String,
    },
    /// The embedded object lacks something.
    #[error(
        "the embedded kernel object lacks {0}; it was not built with this agent: run `cargo xtask build`"
    )]
    Missing(&'static str),
    /// Offsets can't be read.
    #[error(transparent)]
    Offsets(#[from] super::offsets::OffsetsError),
    /// A map access failed.
    #[error("map {name}: {source}")]
    Map {
        /// Name of the map.
        name: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A map is full.
    #[error(
        "{count} entries do not fit into map {name}; make the policy smaller or split it over hosts"
    )]
    Full {
        /// Name of the map.
        name: &'static str,
        /// Entries wanted.
        count: usize,
    },
    /// The guarded directory can't be opened.
    #[error("cgroup {path}: {source}")]
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A hook can't be attached.
    #[error(
        "hook {name} can't be attached to {path}: {source}; is another program attached exclusively there or to a cgroup above? (`bpftool cgroup tree`)"
    )]
    Attach {
        /// Name of the program.
        name: &'static str,
        /// The guarded directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no place for pins.
    #[error(transparent)]
    Mount(#[from] super::mount::MountError),
    /// The pin directory is someone else's.
    #[error(transparent)]
    Lock(#[from] super::lock::LockError),
    /// A pin can't be used.
    #[error("pin {path}: {source}")]
    Pin {
        /// The pin.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl DatapathError {
    /// Wraps a failed access of the map `name`.
    pub(super) fn map(name: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Map { name, source }
    }
}

/// aya's map error as the kernel's error number where there is one.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "aya's other errors carry no error number"
)]
pub(super) fn io_error(error: aya::maps::MapError) -> io::Error {
    match error {
        aya::maps::MapError::SyscallError(error) => error.io_error,
        aya::maps::MapError::CreateError { io_error, .. } => io_error,
        other => io::Error::other(other),
    }
}
