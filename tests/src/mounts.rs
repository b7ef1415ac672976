//! Mount namespaces in which container runtimes run, each held by a process that ends with the test.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Running, Sandbox, program, sandbox::cgroup2_mount};

/// The unified hierarchy on /sys/fs/cgroup, where runtimes look for it: in a hybrid layout they put containers
/// into v1 cgroups only. A `/run` and a `/dev/shm` of its own keep the host's runtimes out of it.
const SETUP: &str = "mount --rbind \"$0\" /sys/fs/cgroup && mount -t tmpfs none /run && mount -t tmpfs none /dev/shm \
     && echo '{\"pid\":0,\"step\":\"ready\",\"error\":null,\"local\":null,\"peer\":null,\"sent\":0,\"received\":0,\"took_ms\":0}' \
     && exec cat >/dev/null";

/// A mount namespace whose mounts nobody else sees.
pub struct Mounts {
    holder: Running,
}

impl Mounts {
    /// Makes one.
    #[must_use]
    pub fn new() -> Self {
        let mut holder = Running::spawn(
            Command::new("unshare")
                .args(["--mount", "--propagation", "private", "sh", "-c", SETUP])
                .arg(cgroup2_mount()),
        );
        let _ready = holder.line().expect_ok("a mount namespace");
        Self { holder }
    }

    /// A command inside it, in the sandbox's network namespace and in the cgroup `runtime` below the guarded one:
    /// a podman in the root cgroup moves every process that is there elsewhere. It becomes `program` itself, with
    /// the same process id, and ends with the calling thread.
    #[must_use]
    pub fn command(&self, sandbox: &Sandbox, program: &str) -> Command {
        let mut command = Command::new(program::own("ringfence-traffic"));
        let _ = command
            .arg("--cgroup")
            .arg(sandbox.cgroup("runtime"))
            .arg("--netns")
            .arg(sandbox.namespace().path())
            .args(["run", "nsenter"])
            .arg(format!("--mount={}", self.path().display()))
            .arg(program);
        command
    }

    /// The file that names it.
    fn path(&self) -> PathBuf {
        Path::new("/proc")
            .join(self.holder.pid().to_string())
            .join("ns/mnt")
    }
}

impl Default for Mounts {
    fn default() -> Self {
        Self::new()
    }
}
