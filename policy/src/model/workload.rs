//! Workloads and the selectors that choose their processes.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use globset::Glob;

/// A named set of processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Unique name.
    pub name: String,
    /// Labels that policies select by.
    pub labels: Arc<BTreeMap<String, String>>,
    /// All of them must match; never empty.
    pub selectors: Vec<Selector>,
    /// Traffic of the workload with itself passes unless a rule denies it.
    pub allow_self: bool,
    /// Document and line that declare it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
}

/// One condition on a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Glob over the cgroup path below the guarded root, with a leading slash; `*` stays within one
    /// component, `**` crosses them. It covers the cgroup and everything below it.
    Cgroup(Glob),
    /// Name of the systemd unit: the first component of the cgroup path after its slices equals it.
    SystemdUnit(String),
    /// Name of the systemd slice: one of the leading components of the cgroup path that end in `.slice`
    /// equals it.
    SystemdSlice(String),
    /// Name of a unit of the service manager of the user whom the workload names beside it: the first component after the
    /// slices below `user@UID.service`. That user alone decides what it holds.
    SystemdUserUnit(String),
    /// Name of a slice of that manager.
    SystemdUserSlice(String),
    /// Absolute path of the executable, as the agent's mount namespace resolves it.
    Exe(PathBuf),
    /// SHA-256 of the executable.
    Sha256([u8; 32]),
    /// Real user id (a `user` name is resolved by the agent, so it is kept as a name).
    Uid(u32),
    /// Name of the user.
    User(String),
    /// What the container's runtime says of it.
    Container {
        /// The key it has in a policy document, such as `container.name` or `k8s.pod-label.app`.
        key: String,
        /// The value, as the runtime has it.
        value: String,
    },
    /// Id of a group that the process is in: its real one or a supplementary one.
    Gid(u32),
    /// Name of such a group.
    Group(String),
}

impl Selector {
    /// The key it has in a policy document.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Cgroup(_) => "cgroup",
            Self::SystemdUnit(_) => "systemd-unit",
            Self::SystemdSlice(_) => "systemd-slice",
            Self::SystemdUserUnit(_) => "systemd-user-unit",
            Self::SystemdUserSlice(_) => "systemd-user-slice",
            Self::Exe(_) => "exe",
            Self::Sha256(_) => "sha256",
            Self::Uid(_) => "uid",
            Self::User(_) => "user",
            Self::Container { key, .. } => key,
            Self::Gid(_) => "gid",
            Self::Group(_) => "group",
        }
    }
}

/// `key = value`, as in a policy document but for quotes.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = ", self.key())?;
        match self {
            Self::Cgroup(glob) => f.write_str(glob.glob()),
            Self::SystemdUnit(text)
            | Self::SystemdSlice(text)
            | Self::SystemdUserUnit(text)
            | Self::SystemdUserSlice(text)
            | Self::User(text)
            | Self::Group(text)
            | Self::Container { value: text, .. } => f.write_str(text),
            Self::Exe(path) => write!(f, "{}", path.display()),
            Self::Sha256(sum) => sum.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Uid(id) | Self::Gid(id) => write!(f, "{id}"),
        }
    }
}
