//! Network namespaces, each held by a process that ends with the test.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Running, program};

/// A network namespace with its loopback device up.
pub struct Namespace {
    holder: Running,
}

impl Namespace {
    /// Makes one.
    #[must_use]
    pub fn new() -> Self {
        let mut holder =
            Running::spawn(Command::new(program::own("ringfence-traffic")).arg("namespace"));
        let _ready = holder.line().expect_ok("a network namespace");
        Self { holder }
    }

    /// The file that names it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/proc")
            .join(self.holder.pid().to_string())
            .join("ns/net")
    }

    /// Runs a command line inside; panics if it fails.
    #[track_caller]
    pub fn run(&self, line: &str) {
        let status = Command::new(program::own("ringfence-traffic"))
            .arg("--netns")
            .arg(self.path())
            .arg("run")
            .args(line.split_ascii_whitespace())
            .status()
            .unwrap();
        assert!(status.success(), "`{line}`: {status}");
    }

    /// Writes a setting below `/proc/sys` inside.
    #[track_caller]
    pub fn sysctl(&self, name: &str, value: &str) {
        let status = Command::new(program::own("ringfence-traffic"))
            .arg("--netns")
            .arg(self.path())
            .args([
                "run",
                "sh",
                "-c",
                "echo \"$1\" > \"/proc/sys/$0\"",
                name,
                value,
            ])
            .status()
            .unwrap();
        assert!(status.success(), "{name} = {value}: {status}");
    }

    /// Connects the two: 10.99.0.1 and `fd99::1` here, 10.99.0.2 and `fd99::2` there.
    pub fn connect(&self, other: &Self) {
        let peer = other.holder.pid();
        self.run(&format!(
            "ip link add test0 type veth peer name test0 netns {peer}"
        ));
        for (namespace, last) in [(self, 1), (other, 2)] {
            namespace.run(&format!("ip address add 10.99.0.{last}/24 dev test0"));
            namespace.run(&format!("ip address add fd99::{last}/64 dev test0 nodad"));
            namespace.run("ip link set test0 up");
        }
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}
