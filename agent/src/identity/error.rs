//! What can go wrong with identities, and what to do about it.

use std::{io, path::PathBuf};

use super::{Crowd, Tie};

/// Why the cgroup tree can't be guarded or workloads can't be told apart.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The mount table has no cgroup v2 hierarchy.
    #[error(
        "no cgroup v2 hierarchy is mounted; mount one (mount -t cgroup2 none /sys/fs/cgroup) or \
         name its directory in agent.cgroup-root"
    )]
    NoCgroup2,
    /// The configured directory is missing.
    #[error("cgroup root {} does not exist; create it or change agent.cgroup-root", path.display())]
    NoRoot {
        /// The directory.
        path: PathBuf,
    },
    /// The configured path is something else than a directory.
    #[error("cgroup root {} is not a directory; name a directory in agent.cgroup-root", path.display())]
    NotDirectory {
        /// The path.
        path: PathBuf,
    },
    /// The configured directory is not on cgroup v2.
    #[error(
        "cgroup root {} is not on cgroup v2; with a hybrid hierarchy use a directory below the \
         cgroup2 mount (agent.cgroup-root = \"auto\" finds it)",
        path.display()
    )]
    NotCgroup2 {
        /// The directory.
        path: PathBuf,
    },
    /// A file or directory can't be read.
    #[error("cannot read {}: {source}; the agent must run as root in the host's namespaces", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// inotify can't be set up at all.
    #[error(
        "cannot start inotify: {0}; raise fs.inotify.max_user_instances or the limit of open files"
    )]
    Inotify(#[source] io::Error),
    /// A workload came without an identity.
    #[error(
        "workload {0:?} has no identity; apply the identities of the policy generation that holds it"
    )]
    NoIdentity(String),
    /// The cgroup patterns of all workloads together can't be compiled.
    #[error("cgroup patterns cannot be used together: {0}; shorten or merge them")]
    Patterns(#[source] globset::Error),
    /// Two workloads claim the same processes with equal right.
    #[error("{0}; give one of them one more selector, or selectors that do not overlap")]
    Tie(Tie),
    /// Too many groups in one cgroup.
    #[error(
        "{0}; use fewer groups, or say with `cgroup`, `systemd-unit` or another selector of places in which \
         cgroups these workloads are"
    )]
    Groups(Crowd),
}
