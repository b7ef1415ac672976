//! The cgroups below the guarded root, as they are now.
//!
//! A directory is watched first and listed second, so that nothing created in between is lost. Events
//! only name what must be looked at again: the file system decides, so that late, doubled and
//! reordered events do no harm. Directories are opened relative to their parents: names of any bytes
//! and paths longer than `PATH_MAX` work.
//!
//! What events name is taken in in steps that are counted ([`Tree::work`]), so that nobody who makes many cgroups
//! keeps the agent from everything else. Nothing below [`DEEPEST`] is followed: a chain of names costs no more.

pub(super) mod directory;
mod owner;
mod room;
#[cfg(test)]
mod tests;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use inotify::{WatchDescriptor, WatchMask};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat},
    sys::stat::{Mode, fstat},
};
use ringfence_common::abi::cgroup::MAX_LEVEL;

pub use self::room::{MOST as MOST_CGROUPS, MOST_DELEGATED};
use self::{
    directory::{flags, list, names},
    room::Room,
    work::Work,
};
use super::{IdentityError, watch::Watcher};

/// Levels below the guarded root that are followed: as many as the kernel programs look at on the way up, so that
/// what lies deeper is found to be below one that is followed.
pub const DEEPEST: u32 = MAX_LEVEL;

/// One cgroup.
#[derive(Debug)]
struct Node {
    path: PathBuf,
    parent: u64,
    /// Below the guarded root, which is 0.
    level: u32,
    /// User that it belonged to when it was last looked at.
    owner: u32,
    children: BTreeMap<OsString, u64>,
    watch: Option<WatchDescriptor>,
    /// The cgroup above that was handed to a user, who made this one or could have; 0 = root made it.
    delegated: u64,
}

/// The tree, keyed by cgroup id.
pub(super) struct Tree {
    root: OwnedFd,
    root_id: u64,
    device: u64,
    nodes: HashMap<u64, Node>,
    watched: HashMap<WatchDescriptor, u64>,
    incomplete: bool,
    room: Room,
    work: Work,
}

impl Tree {
    /// Walks and watches everything below a directory.
    pub fn new(root: &Path, watcher: &Watcher) -> Result<Self, IdentityError> {
        let read = |errno: Errno| IdentityError::Read {
            path: root.into(),
            source: errno.into(),
        };
        let descriptor = open(root, flags() & !OFlag::O_NOFOLLOW, Mode::empty()).map_err(read)?;
        let stat = fstat(&descriptor).map_err(read)?;
        let mut tree = Self {
            root: descriptor,
            root_id: stat.st_ino,
            device: stat.st_dev,
            nodes: HashMap::new(),
            watched: HashMap::new(),
            incomplete: false,
            room: Room::default(),
            work: Work::default(),
        };
        tree.insert_root(stat.st_uid);
        let _ = tree.rescan(watcher);
        Ok(tree)
    }

    /// Id of the guarded root.
    pub fn root_id(&self) -> u64 {
        self.root_id
    }

    /// Whether something could not be watched or read, so that only a rescan finds its changes.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Path below the root, with a leading slash.
    pub fn path(&self, id: u64) -> Option<&Path> {
        self.nodes.get(&id).map(|node| node.path.as_path())
    }

    /// Level below the guarded root, which is 0.
    pub fn level(&self, id: u64) -> Option<u32> {
        self.nodes.get(&id).map(|node| node.level)
    }

    /// Parent of a cgroup; `None` for the root and for what isn't known.
    pub fn parent(&self, id: u64) -> Option<u64> {
        let node = self.nodes.get(&id).filter(|_| id != self.root_id)?;
        Some(node.parent)
    }

    /// Whether root alone could create the cgroup: the one above belongs to root.
    pub fn is_roots(&self, id: u64) -> bool {
        self.parent(id)
            .and_then(|parent| self.nodes.get(&parent))
            .is_some_and(|parent| parent.owner == 0)
    }

    /// The cgroup at a path and every one below it.
    pub fn subtree(&self, path: &Path) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        let mut pending: Vec<u64> = self.find(path).into_iter().collect();
        while let Some(id) = pending.pop() {
            if let Some(node) = self.nodes.get(&id) {
                pending.extend(node.children.values());
                let _ = found.insert(id);
            }
        }
        found
    }

    /// Every cgroup with its path, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Path)> {
        self.nodes
            .iter()
            .map(|(id, node)| (*id, node.path.as_path()))
    }

    /// Id of the cgroup with a path.
    pub fn find(&self, path: &Path) -> Option<u64> {
        names(path).try_fold(self.root_id, |id, name| {
            self.nodes.get(&id)?.children.get(name).copied()
        })
    }

    /// Looks at the whole hierarchy again; returns the ids that came, went or moved.
    pub fn rescan(&mut self, watcher: &Watcher) -> BTreeSet<u64> {
        let mut changed = BTreeSet::new();
        self.incomplete = false;
        self.room.look_again();
        self.work = Work::default();
        match self.open(Path::new("/")) {
            Ok(root) => {
                let _ = self.is_owned(&root, self.root_id, watcher, &mut changed);
                self.descend(root, self.root_id, watcher, &mut changed);
                let mut all = usize::MAX;
                self.go_on(watcher, &mut all, &mut changed);
            }
            Err(error) => {
                self.incomplete = true;
                tracing::warn!(%error, "guarded cgroup root cannot be opened");
            }
        }
        changed
    }

    /// Watches a directory, then lists it; children that are gone are forgotten.
    fn enter(
        &mut self,
        directory: &OwnedFd,
        id: u64,
        watcher: &Watcher,
        changed: &mut BTreeSet<u64>,
    ) -> BTreeSet<OsString> {
        if self.nodes.get(&id).is_some_and(|node| node.watch.is_none()) {
            // Who owns a cgroup is an attribute of its directory.
            match watcher.add(directory, WatchMask::ATTRIB) {
                Ok(watch) => {
                    let _ = self.watched.insert(watch.clone(), id);
                    if let Some(node) = self.nodes.get_mut(&id) {
                        node.watch = Some(watch);
                    }
                }
                Err(error) => self.miss("watch", &error),
            }
        }
        let listed = match list(directory) {
            Ok(listed) => listed,
            Err(Errno::ENOENT) => BTreeSet::new(),
            Err(errno) => {
                self.miss("list", &errno.into());
                return BTreeSet::new();
            }
        };
        let gone: Vec<u64> = self.nodes.get(&id).map_or_else(Vec::new, |node| {
            let children = node.children.iter();
            let gone = children.filter(|(name, _)| !listed.contains(*name));
            gone.map(|(_, id)| *id).collect()
        });
        for child in gone {
            self.forget(child, watcher, changed);
        }
        if self.is_deepest(id) {
            self.room.deeper(id, listed.len());
            return BTreeSet::new();
        }
        listed
    }

    /// Compares one name with the file system; returns the directory where there is one.
    fn look(
        &mut self,
        directory: &OwnedFd,
        name: &OsStr,
        parent: u64,
        watcher: &Watcher,
        changed: &mut BTreeSet<u64>,
    ) -> Option<(OwnedFd, u64)> {
        let above = self.nodes.get(&parent)?;
        let (known, level) = (above.children.get(name).copied(), above.level + 1);
        if level > DEEPEST {
            self.look_below(directory, parent);
            return None;
        }
        let opened = openat(directory, name, flags(), Mode::empty())
            .and_then(|fd| fstat(&fd).map(|stat| (fd, stat)));
        let found = match opened {
            Ok((fd, stat)) if stat.st_dev == self.device => Some((fd, stat.st_ino, stat.st_uid)),
            Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENODEV) => None,
            Err(errno) => {
                self.miss("open", &errno.into());
                return None;
            }
        };
        let id = found.as_ref().map(|(_, id, _)| *id);
        if let Some(known) = known.filter(|known| Some(*known) != id) {
            self.forget(known, watcher, changed);
        }
        let (fd, id, owner) = found?;
        if known == Some(id) {
            self.set_owner(id, owner, watcher, changed);
        } else {
            self.forget(id, watcher, changed);
            let delegated = self.delegated(parent);
            if !self.room.enter(delegated) {
                return None;
            }
            let above = self.nodes.get_mut(&parent)?;
            let node = Node {
                path: above.path.join(name),
                parent,
                level,
                owner,
                children: BTreeMap::new(),
                watch: None,
                delegated,
            };
            let _ = above.children.insert(name.to_owned(), id);
            let _ = self.nodes.insert(id, node);
            let _ = changed.insert(id);
        }
        Some((fd, id))
    }

    fn insert_root(&mut self, owner: u32) {
        let node = Node {
            path: "/".into(),
            parent: self.root_id,
            level: 0,
            owner,
            children: BTreeMap::new(),
            watch: None,
            delegated: 0,
        };
        let _ = self.nodes.insert(self.root_id, node);
    }

    /// Forgets a cgroup and everything below it. The root stays.
    fn forget(&mut self, id: u64, watcher: &Watcher, changed: &mut BTreeSet<u64>) {
        if id == self.root_id {
            return;
        }
        let name = self.path(id).and_then(Path::file_name).map(OsStr::to_owned);
        let parent = self
            .parent(id)
            .and_then(|parent| self.nodes.get_mut(&parent));
        if let Some((name, parent)) = name.zip(parent)
            && parent.children.get(&name) == Some(&id)
        {
            let _ = parent.children.remove(&name);
        }
        let mut pending = vec![id];
        while let Some(id) = pending.pop() {
            let Some(node) = self.nodes.remove(&id) else {
                continue;
            };
            let _ = changed.insert(id);
            self.room.deeper(id, 0);
            // There is room for one that was left out.
            self.incomplete |= self.room.leave(node.delegated);
            pending.extend(node.children.into_values());
            if let Some(watch) = node.watch {
                let _ = self.watched.remove(&watch);
                watcher.remove(watch);
            }
        }
    }

    fn open(&self, path: &Path) -> nix::Result<OwnedFd> {
        let root = openat(self.root.as_fd(), ".", flags(), Mode::empty())?;
        names(path).try_fold(root, |directory, name| {
            openat(&directory, name, flags(), Mode::empty())
        })
    }

    fn miss(&mut self, action: &str, error: &std::io::Error) {
        if !self.incomplete {
            tracing::warn!(
                action, %error,
                "cgroup tree is not watched as a whole: rescanning every second; raise \
                 fs.inotify.max_user_watches or the limit of open files"
            );
        }
        self.incomplete = true;
    }
}
