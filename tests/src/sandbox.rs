//! Everything that a test makes on the host, and its removal.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{
    Actor,
    namespace::Namespace,
    poll::{poll, until},
    program,
};

/// Begins the names of all cgroups and pin directories of tests.
const PREFIX: &str = "ringfence-test-";
/// Where the agent mounts the BPF file system.
const BPF: &str = "/sys/fs/bpf";

/// A guarded cgroup, one beside it that is not, a network namespace, a pin directory and files.
pub struct Sandbox {
    name: String,
    guarded: PathBuf,
    outside: PathBuf,
    namespace: Namespace,
    files: TempDir,
}

impl Sandbox {
    /// Makes one; `name` is unique among the tests of one process.
    #[must_use]
    pub fn new(name: &str) -> Self {
        sweep();
        let name = format!("{PREFIX}{}-{name}", std::process::id());
        let mount = cgroup2_mount();
        let guarded = mount.join(&name);
        let outside = mount.join(format!("{name}-outside"));
        for cgroup in [&guarded, &outside] {
            fs::create_dir(cgroup).unwrap_or_else(|error| panic!("{}: {error}", cgroup.display()));
        }
        let files = tempfile::Builder::new().prefix(PREFIX).tempdir().unwrap();
        Self {
            namespace: Namespace::new(),
            name,
            guarded,
            outside,
            files,
        }
    }

    /// The cgroup that the agent guards.
    #[must_use]
    pub fn guarded(&self) -> &Path {
        &self.guarded
    }

    /// A directory for files.
    #[must_use]
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// Where the agent pins.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        Path::new(BPF).join(&self.name)
    }

    /// The network namespace in which actors are unless they are told otherwise.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// A cgroup below the guarded one, made if absent.
    #[must_use]
    pub fn cgroup(&self, path: &str) -> PathBuf {
        let cgroup = self.guarded.join(path.trim_start_matches('/'));
        fs::create_dir_all(&cgroup).unwrap();
        cgroup
    }

    /// A program of its own (a copy of the traffic tool) in a cgroup of its own, both called `name`.
    #[must_use]
    pub fn actor(&self, name: &str) -> Actor {
        Actor::new(self.program(name), self.cgroup(name), self.namespace.path())
    }

    /// The same outside the guarded cgroup.
    #[must_use]
    pub fn stranger(&self, name: &str) -> Actor {
        let cgroup = self.outside.clone();
        Actor::new(self.program(name), cgroup, self.namespace.path())
    }

    /// A copy of the traffic tool, so that it is another executable.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        let programs = self.files().join("bin");
        let copy = programs.join(name);
        if !copy.exists() {
            fs::create_dir_all(&programs).unwrap();
            let _bytes = fs::copy(program::own("ringfence-traffic"), &copy).unwrap();
        }
        copy
    }

    /// Removes everything and says what could not be removed.
    #[must_use]
    pub fn remove(self) -> Vec<PathBuf> {
        let mut paths = vec![
            self.pins(),
            self.guarded.clone(),
            self.outside.clone(),
            self.files().to_owned(),
            self.namespace.path(),
        ];
        drop(self);
        paths.retain(|path| path.exists());
        paths
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for cgroup in [&self.guarded, &self.outside] {
            remove_cgroup(cgroup);
        }
        remove_pins(&self.pins());
    }
}

/// Removes what a test process left behind that was killed.
fn sweep() {
    let stale = |dir: &Path| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let dead = entries.filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let pid = name
                .strip_prefix(PREFIX)
                .and_then(|rest| rest.split('-').next());
            pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
        });
        dead.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    for cgroup in stale(&cgroup2_mount()) {
        remove_cgroup(&cgroup);
    }
    for pins in stale(Path::new(BPF)) {
        remove_pins(&pins);
    }
}

/// Kills what is in it and removes it with everything below.
fn remove_cgroup(cgroup: &Path) {
    let _gone = fs::write(cgroup.join("cgroup.kill"), "1");
    let empty = poll(|| {
        let events = fs::read_to_string(cgroup.join("cgroup.events"));
        let populated = events.is_ok_and(|events| events.contains("populated 1"));
        (!populated).then_some(())
    });
    if empty.is_none() {
        // Said by whoever asks for leftovers: a panic here would hide another one.
        return;
    }
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_cgroup(&entry.path());
    }
    let _removed = poll(|| match fs::remove_dir(cgroup) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => None,
        other => Some(other),
    });
}

fn remove_pins(pins: &Path) {
    if pins.exists() {
        let _gone = fs::remove_dir_all(pins);
    }
}

/// Where cgroup v2 is mounted; in a hybrid layout that is not `/sys/fs/cgroup`.
#[must_use]
pub fn cgroup2_mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let dir = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(dir))
    });
    mount.unwrap_or_else(|| panic!("no cgroup v2 hierarchy is mounted"))
}

/// Waits until no process is left in `cgroup`.
pub fn wait_until_empty(cgroup: &Path) {
    until("a cgroup without processes", || {
        fs::read_to_string(cgroup.join("cgroup.procs")).is_ok_and(|procs| procs.trim().is_empty())
    });
}
