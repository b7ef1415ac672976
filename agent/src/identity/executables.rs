//! Executables that were judged: which selectors name the file behind a key.
//!
//! An `exe` selector stands for the file that its path leads to in the agent's mount namespace, as
//! it is now; whoever runs that file matches, by whatever link, and a copy doesn't. A `sha256`
//! selector stands for the content, wherever it lies. Directories on the way to the paths are
//! watched, and the paths are looked at again before an unknown executable is judged.

mod room;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use inotify::{WatchDescriptor, WatchMask};
use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};
use ringfence_common::abi::ExecutableKey;
use tokio::sync::Notify;

pub use self::room::Forgotten;
use super::{
    Asker,
    adopt::credentials,
    file::Executable,
    hash::{Digest, Hashing, NoDigest},
    hasher::{Hasher, Outcome},
    mounts::{Mount, Mounts},
    processes::Facts,
    seldom::Seldom,
    spec::Spec,
    watch::{Batch, Watcher},
};

/// Executables that are remembered: three quarters of what the map holds, so that those which are new have room
/// before others go.
pub(super) const MOST_KNOWN: usize = 49_152;
/// Larger files are not hashed unless it is configured, bytes.
pub const HASH_LIMIT: u64 = 512 << 20;
/// For one asker no more is read, unless it is configured, bytes a second.
pub const HASH_RATE: u64 = 64 << 20;

/// Stands for the owner of a file that does not say.
const NOBODY: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Known {
    digest: Digest,
    /// Owner of the file.
    owner: u32,
    last_asked: u64,
}

/// Everything known about executables.
#[derive(Clone, Debug)]
pub(super) struct Executables {
    /// Paths of `exe` selectors with the key of the file that is there now.
    paths: BTreeMap<PathBuf, Option<ExecutableKey>>,
    /// The agent's mounts, as of the last [`Self::refresh`].
    mounts: Mounts,
    /// Digests of `sha256` selectors.
    digests: BTreeSet<[u8; 32]>,
    /// `paths` the other way round.
    named: HashMap<ExecutableKey, BTreeSet<PathBuf>>,
    known: HashMap<ExecutableKey, Known>,
    /// Per directory the entries that lie on the way to some path.
    watched: HashMap<WatchDescriptor, BTreeSet<OsString>>,
    asked: u64,
    most: usize,
    forgotten: Forgotten,
    limit: u64,
    rate: u64,
    warned: Seldom,
    /// Without it a file is hashed when it is judged.
    hasher: Option<Hasher>,
}

impl Executables {
    /// Without selectors; remembers at most `most` executables. Those named by path count, and are never forgotten.
    pub fn new(most: usize) -> Self {
        Self {
            paths: BTreeMap::new(),
            mounts: Mounts::default(),
            digests: BTreeSet::new(),
            named: HashMap::new(),
            known: HashMap::new(),
            watched: HashMap::new(),
            asked: 0,
            most,
            forgotten: Forgotten::default(),
            limit: HASH_LIMIT,
            rate: HASH_RATE,
            warned: Seldom::default(),
            hasher: None,
        }
    }

    /// Larger files than `limit` bytes are not hashed, and `rate` bytes a second for one asker, once `limit` bytes were.
    pub fn limit_hashing(&mut self, limit: u64, rate: u64) {
        (self.limit, self.rate) = (limit, rate);
    }

    /// From now on files are hashed on a thread of its own, and are judged when [`Self::take_hashed`] is
    /// called after the notification.
    pub fn hash_in_background(&mut self) -> io::Result<Arc<Notify>> {
        let hasher = Hasher::start(self.rate, self.limit)?;
        let done = hasher.done();
        self.hasher = Some(hasher);
        Ok(done)
    }

    /// Judges the executables that were hashed meanwhile; returns the keys for which something changed.
    pub fn take_hashed(&mut self) -> BTreeSet<ExecutableKey> {
        let mut changed = BTreeSet::new();
        let outcomes: Vec<_> = self.hasher.iter().flat_map(Hasher::take).collect();
        for Outcome { key, owner, digest } in outcomes {
            match digest {
                Ok(digest) => {
                    self.remember(key, owner, digest);
                    let _ = changed.insert(key);
                    changed.append(&mut self.make_room());
                }
                Err(error) => {
                    tracing::debug!(inode = key.inode, %error, "executable is not judged");
                }
            }
        }
        changed
    }

    /// The same executables under the selectors of other workloads. Those whose digest is asked for
    /// the first time are forgotten, so that they are judged again.
    pub fn with_specs(&self, specs: &[Spec]) -> Self {
        let conditions = || specs.iter().map(|spec| &spec.condition);
        let mut next = self.clone();
        next.paths = conditions()
            .flat_map(|condition| &condition.paths)
            .map(|path| (path.clone(), self.paths.get(path).copied().flatten()))
            .collect();
        next.digests = conditions().flat_map(|c| &c.digests).copied().collect();
        if self.digests.is_empty() && !next.digests.is_empty() {
            next.known.clear();
        }
        next.name();
        next
    }

    /// What selectors say about an executable; `None` until it was judged.
    pub fn facts(&self, key: &ExecutableKey) -> Option<Facts> {
        let known = self.known.get(key)?;
        Some(Facts {
            paths: self.named.get(key).cloned().unwrap_or_default(),
            digest: known.digest.filter(|digest| self.digests.contains(digest)),
        })
    }

    /// Whether the path of a selector leads to a file, as of the last [`Self::refresh`].
    pub fn is_file(&self, path: &Path) -> bool {
        self.paths.get(path).is_some_and(Option::is_some)
    }

    /// How many were dropped for lack of room, and whose.
    pub fn forgotten(&self) -> Forgotten {
        self.forgotten
    }

    /// Every judged executable.
    pub fn keys(&self) -> impl Iterator<Item = ExecutableKey> {
        self.known.keys().copied()
    }

    /// Looks at all paths and at the agent's mounts again; returns the keys for which something changed.
    pub fn refresh(&mut self) -> BTreeSet<ExecutableKey> {
        let mut changed = BTreeSet::new();
        self.mounts = own_mounts();
        if self.paths.is_empty() {
            return changed;
        }
        let paths: Vec<PathBuf> = self.paths.keys().cloned().collect();
        for path in paths {
            let file = Executable::open(&path, &self.mounts);
            let key = file.as_ref().map(|file| file.key).ok();
            let before = self.paths.insert(path.clone(), key).flatten();
            if before != key {
                changed.extend(before.into_iter().chain(key));
            }
            // What is hashed must be run by somebody, so that nobody writes it.
            if let Ok(file) = file
                && self.digests.is_empty()
                && !self.known.contains_key(&file.key)
            {
                let _ = changed.insert(file.key);
                self.remember(file.key, file.uid, None);
            }
        }
        // A key that a path led to is of no use without the path: it is judged again when seen.
        self.name();
        for key in changed.iter().filter(|key| !self.named.contains_key(key)) {
            let _ = self.known.remove(key);
        }
        changed
    }

    /// Judges the executable that a process runs, if it still is the one that the kernel saw.
    /// Returns the keys for which something changed, among them those dropped for lack of room.
    pub fn judge_process(
        &mut self,
        key: ExecutableKey,
        tgid: u32,
        asker: Asker,
    ) -> BTreeSet<ExecutableKey> {
        let mut changed = BTreeSet::new();
        if self.hasher.as_ref().is_some_and(|it| it.is_asked(&key)) {
            return changed;
        }
        match self.judge_running(key, tgid, asker) {
            Ok(true) => {
                let _ = changed.insert(key);
                changed.append(&mut self.make_room());
            }
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(tgid, inode = key.inode, %error, "executable is not judged");
            }
        }
        changed
    }

    /// Notes that the kernel asked for a known executable.
    pub fn touch(&mut self, key: &ExecutableKey) {
        self.asked += 1;
        if let Some(known) = self.known.get_mut(key) {
            known.last_asked = self.asked;
        }
    }

    /// Whether a batch names something on the way to a path; watches that the kernel dropped are
    /// forgotten.
    pub fn concerns(&mut self, batch: &Batch) -> bool {
        let mut concerned = batch.dirty.iter().any(|(watch, names)| {
            self.watched
                .get(watch)
                .is_some_and(|entries| !entries.is_disjoint(names))
        });
        for watch in &batch.dropped {
            concerned |= self.watched.remove(watch).is_some();
        }
        concerned
    }

    /// Takes over the watches of another state that is not to be used.
    pub fn inherit_watches(&mut self, other: Self) {
        self.watched = other.watched;
    }

    /// Watches the directories on the way to every path, along links too.
    pub fn watch(&mut self, watcher: &Watcher) {
        let before = std::mem::take(&mut self.watched);
        for (directory, entries) in self.ways() {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let added = open(&directory, flags, Mode::empty())
                .map_err(io::Error::from)
                .and_then(|opened| watcher.add(opened, WatchMask::ATTRIB | WatchMask::CLOSE_WRITE));
            match added {
                Ok(watch) => self.watched.entry(watch).or_default().extend(entries),
                // What does not exist is watched through its parent.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(
                    directory = %directory.display(), %error,
                    "directory of an executable is not watched: changes are noticed when it is run"
                ),
            }
        }
        for watch in before.into_keys() {
            if !self.watched.contains_key(&watch) {
                watcher.remove(watch);
            }
        }
    }

    /// Directories on the way to every path, with the entries that matter in each.
    fn ways(&self) -> BTreeMap<PathBuf, BTreeSet<OsString>> {
        let mut ways: BTreeMap<PathBuf, BTreeSet<OsString>> = BTreeMap::new();
        let real = self
            .paths
            .keys()
            .filter_map(|path| path.canonicalize().ok());
        for path in self.paths.keys().cloned().chain(real) {
            for step in path.ancestors() {
                if let (Some(directory), Some(entry)) = (step.parent(), step.file_name()) {
                    let entries = ways.entry(directory.to_path_buf()).or_default();
                    let _ = entries.insert(entry.to_owned());
                }
            }
        }
        ways
    }

    fn name(&mut self) {
        self.named.clear();
        for (path, key) in &self.paths {
            if let Some(key) = key {
                let _ = self.named.entry(*key).or_default().insert(path.clone());
            }
        }
    }

    fn judge_running(&mut self, key: ExecutableKey, tgid: u32, asker: Asker) -> io::Result<bool> {
        let mount = self.mounts.by_device(key.device);
        if mount.is_some_and(Mount::is_fuse) {
            // Not even opened: its server could make the agent wait for ever.
            let user = credentials(tgid).map_or(NOBODY, |(user, _)| user);
            self.remember(key, user, None);
            return Ok(true);
        }
        let file = Executable::running(tgid, key, &self.mounts)?;
        self.judge(file, tgid, asker)
    }

    /// Whether the executable of a process is judged now, and not only when it was hashed.
    fn judge(&mut self, file: Executable, tgid: u32, asker: Asker) -> io::Result<bool> {
        let (key, owner) = (file.key, file.uid);
        if self.digests.is_empty() {
            self.remember(key, owner, None);
            return Ok(true);
        }
        let path = file.path();
        let digest = match Hashing::new(file, tgid, self.limit, &self.mounts)? {
            Err(why) => {
                self.warn(&path, why);
                None
            }
            Ok(hashing) => match &self.hasher {
                None => Some(hashing.finish()?),
                Some(hasher) => {
                    if !hasher.ask(hashing, asker) {
                        tracing::debug!(inode = key.inode, "too many executables to hash at once");
                    }
                    return Ok(false);
                }
            },
        };
        self.remember(key, owner, digest);
        Ok(true)
    }

    /// Anybody can run any number of such files.
    fn warn(&mut self, path: &Path, why: NoDigest) {
        if let Some(others) = self.warned.pass(Instant::now()) {
            tracing::warn!(
                path = %path.display(),
                others,
                "no sha256 selector matches the executable: {}; `others` had no such line since the last one",
                why.reason()
            );
        }
    }

    fn remember(&mut self, key: ExecutableKey, owner: u32, digest: Digest) {
        self.asked += 1;
        let known = Known {
            digest,
            owner,
            last_asked: self.asked,
        };
        let _ = self.known.insert(key, known);
    }
}

fn own_mounts() -> Mounts {
    Mounts::own().unwrap_or_else(|error| {
        tracing::warn!(%error, "mount table cannot be read");
        Mounts::default()
    })
}
