//! What the runtimes of the tests have in common: a root file system, and a container that runs.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::{Sandbox, sandbox::cgroup2_mount};

/// Where busybox-static is.
const BUSYBOX: &str = "/bin/busybox";
/// Tools of busybox that a container finds by name.
const TOOLS: [&str; 4] = ["sh", "sleep", "cat", "true"];
/// Directories of the host that a container sees, so that the traffic tool finds its libraries.
pub(crate) const LIBRARIES: [&str; 2] = ["/usr/lib", "/usr/lib64"];
/// Where a container finds the programs of [`Sandbox::program`].
pub(crate) const PROGRAMS: &str = "/programs";

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id, 64 hex digits.
    pub id: String,
    /// Its init process, in the host's PID namespace.
    pub pid: u32,
    /// Its cgroup.
    pub cgroup: PathBuf,
}

impl Container {
    /// The container whose init process is `pid`.
    pub(crate) fn new(id: String, pid: u32) -> Self {
        let cgroup = cgroup_of(pid);
        Self { id, pid, cgroup }
    }
}

/// Makes a root file system of busybox and mount points in `dir`.
pub(crate) fn root(dir: &Path) {
    let points = ["bin", "etc", "proc", "sys", "dev", "tmp", "run", "programs"];
    for point in points.into_iter().chain(["usr/lib", "usr/lib64"]) {
        fs::create_dir_all(dir.join(point)).unwrap();
    }
    for name in ["lib", "lib64"] {
        symlink(format!("usr/{name}"), dir.join(name)).unwrap();
    }
    let busybox = dir.join("bin/busybox");
    let _bytes = fs::copy(BUSYBOX, &busybox)
        .unwrap_or_else(|error| panic!("{BUSYBOX} (package busybox-static): {error}"));
    let program = fs::read(&busybox).unwrap();
    let needs_loader = program.windows(6).any(|bytes| bytes == b"/ld-li");
    assert!(
        !needs_loader,
        "{BUSYBOX} is not static: replace the package busybox by busybox-static"
    );
    for tool in TOOLS {
        symlink("busybox", dir.join("bin").join(tool)).unwrap();
    }
}

/// Host path and path inside of what a container sees of the host, read-only; only what there is.
pub(crate) fn volumes(sandbox: &Sandbox) -> Vec<(PathBuf, PathBuf)> {
    let _any = sandbox.program("traffic");
    let libraries = LIBRARIES.map(|dir| (PathBuf::from(dir), PathBuf::from(dir)));
    let programs = (sandbox.files().join("bin"), PathBuf::from(PROGRAMS));
    let mut volumes: Vec<_> = libraries.into_iter().chain([programs]).collect();
    volumes.retain(|(host, _)| host.exists());
    volumes
}

/// The cgroup v2 directory of a process.
fn cgroup_of(pid: u32) -> PathBuf {
    let file = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    cgroup2_mount().join(path.unwrap_or_else(|| panic!("{file}: {text}")))
}
