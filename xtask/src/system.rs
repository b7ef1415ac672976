//! The system below: who we are, Debian's packages, the cgroup v2 mount.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

/// A package that tests use, and the program by which it is known to be there.
pub struct Package {
    /// Debian's name of it.
    pub name: &'static str,
    /// The program that it brings.
    pub program: &'static str,
    /// Whether tests fail without it.
    pub required: bool,
}

/// Every system package that tests need beyond a Rust toolchain: the one place that lists them.
pub const TEST_PACKAGES: &[Package] = &[
    Package {
        name: "iproute2",
        program: "ip",
        required: true,
    },
    Package {
        name: "iproute2",
        program: "tc",
        required: true,
    },
    Package {
        name: "podman",
        program: "podman",
        required: true,
    },
    Package {
        name: "runc",
        program: "runc",
        required: true,
    },
    Package {
        name: "containerd",
        program: "containerd",
        required: true,
    },
    Package {
        name: "busybox-static",
        program: "busybox",
        required: true,
    },
    Package {
        name: "bpftool",
        program: "bpftool",
        required: false,
    },
    Package {
        name: "iperf3",
        program: "iperf3",
        required: false,
    },
];

const APT_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Whether this process is root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0)
}

/// Installs Debian packages; removes nothing for it.
pub fn apt_install(packages: &[&str]) -> Result<()> {
    let Some(apt) = process::find_program("apt-get") else {
        bail!("there is no apt-get here");
    };
    if !is_root() {
        bail!("installing {} needs root", packages.join(" "));
    }
    let log = workspace::tools().join("apt.log");
    let mut update = apt_get(&apt);
    let _ = update.arg("update");
    process::run_logged(&mut update, &log, APT_LIMIT)?;
    let mut install = apt_get(&apt);
    let _ = install
        .args(["install", "--yes", "--no-install-recommends", "--no-remove"])
        .args(packages);
    process::run_logged(&mut install, &log, APT_LIMIT)
}

/// Where the cgroup v2 hierarchy is mounted; in a hybrid layout that is not `/sys/fs/cgroup`.
pub fn cgroup2_mount() -> Result<PathBuf> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    mounts
        .lines()
        .map(|line| line.split_ascii_whitespace().skip(1))
        .find_map(|mut fields| {
            let dir = fields.next()?;
            (fields.next()? == "cgroup2").then(|| PathBuf::from(dir))
        })
        .context(
            "no cgroup v2 hierarchy is mounted: `mount -t cgroup2 none /sys/fs/cgroup`, \
             or boot with systemd.unified_cgroup_hierarchy=1",
        )
}

fn apt_get(apt: &PathBuf) -> Command {
    let mut command = Command::new(apt);
    let _ = command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .arg("--quiet");
    command
}
