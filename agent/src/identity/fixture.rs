//! What the tests of this folder share: cgroups that clean up after themselves, and workloads.
#![expect(clippy::expect_used, reason = "a panic fails the test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use globset::GlobBuilder;
use ringfence_policy::model::{Identities, Selector, Workload, Workloads};

use super::root;

/// A cgroup of its own for a test; removed with everything below it.
pub(super) struct TestCgroup(PathBuf);

impl TestCgroup {
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mount = root::find().expect("this test needs cgroup v2: mount it");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = mount.join(format!("ringfence-test-{}-{number}-{name}", process::id()));
        fs::create_dir(&path).expect("this test needs root: it creates a cgroup");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Creates a cgroup and those above it.
    pub fn create(&self, below: impl AsRef<Path>) -> PathBuf {
        let path = self.0.join(below);
        fs::create_dir_all(&path).expect("create cgroup");
        path
    }

    /// Runs a program in a cgroup.
    pub fn run(&self, below: &str, program: &Path, stdin: Stdio) -> Running {
        let mut command = Command::new(program);
        let child = command
            .arg("1000")
            .stdin(stdin)
            .spawn()
            .expect("run program");
        let running = Running(child);
        let procs = self.0.join(below).join("cgroup.procs");
        fs::write(procs, running.tgid().to_string()).expect("move process");
        running
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        for _ in 0..100 {
            // Through the shell tool: paths may be longer than PATH_MAX.
            let mut find = Command::new("find");
            let _ = find
                .arg(&self.0)
                .args(["-depth", "-type", "d", "-execdir", "rmdir", "{}", ";"]);
            let _ = find.stderr(Stdio::null()).status();
            if !self.0.exists() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A child process that ends with the test.
pub(super) struct Running(Child);

impl Running {
    pub fn of(child: Child) -> Self {
        Self(child)
    }

    pub fn tgid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A copy of a program that waits.
pub(super) fn program(path: &Path) {
    let _ = fs::copy("/bin/sleep", path).expect("copy /bin/sleep");
}

pub(super) fn cgroup(glob: &str) -> Selector {
    let glob = GlobBuilder::new(glob).literal_separator(true).build();
    Selector::Cgroup(glob.expect("glob"))
}

pub(super) fn unit(name: &str) -> Selector {
    Selector::SystemdUnit(name.into())
}

pub(super) fn slice(name: &str) -> Selector {
    Selector::SystemdSlice(name.into())
}

pub(super) fn user_unit(name: &str) -> Selector {
    Selector::SystemdUserUnit(name.into())
}

pub(super) fn user_slice(name: &str) -> Selector {
    Selector::SystemdUserSlice(name.into())
}

pub(super) fn container(key: &str, value: &str) -> Selector {
    Selector::Container {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

/// Workloads with identities 256, 257 …
pub(super) fn workloads(list: &[(&str, &[Selector])]) -> (Workloads, Arc<Identities>) {
    let workloads = list.iter().map(|(name, selectors)| {
        Arc::new(Workload {
            name: (*name).into(),
            labels: Arc::new([("app".to_owned(), (*name).to_owned())].into()),
            selectors: selectors.to_vec(),
            allow_self: true,
            file: "test.toml".into(),
            line: 1,
        })
    });
    let identities = (256..)
        .zip(list)
        .map(|(identity, (name, _))| ((*name).into(), identity));
    (workloads.collect(), Arc::new(identities.collect()))
}
