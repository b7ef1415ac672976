//! Processes that had sockets before the agent came.

use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
    process,
};

use ringfence_common::abi::ExecutableKey;

use super::{
    Groups, Resolver,
    file::{Executable, directory},
    mounts::Mounts,
    root::cgroup_id,
};

/// A process in a guarded cgroup with its sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSockets {
    /// Thread group id.
    pub tgid: u32,
    /// Real user id.
    pub uid: u32,
    /// Its groups.
    pub groups: Groups,
    /// Command name, NUL-padded.
    pub comm: [u8; 16],
    /// Its cgroup.
    pub cgroup_id: u64,
    /// Its executable; `None` where it has none or it can't be read.
    pub exe: Option<ExecutableKey>,
    /// Descriptor and inode number of every socket.
    pub fds: Vec<(i32, u64)>,
}

/// Number of a cgroup that /proc does not show: none has it, so that it is one that is not known.
const NOT_SHOWN: u64 = u64::MAX;
/// Bytes of a path that /proc shows at most: `PATH_MAX` without the NUL that ends it (`proc_cgroup_show`).
const MOST_SHOWN: usize = 4_095;

/// Every process below the guarded root that has a socket. What vanishes or can't be read meanwhile
/// is left out: the kernel judges it when it uses the socket.
#[must_use]
pub fn processes(resolver: &Resolver) -> Vec<ProcessSockets> {
    let Ok(entries) = fs::read_dir("/proc") else {
        tracing::warn!("/proc cannot be read: sockets are not adopted");
        return Vec::new();
    };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    those(resolver, numbers)
}

/// The same of these processes only.
#[must_use]
pub fn those(resolver: &Resolver, tgids: impl IntoIterator<Item = u32>) -> Vec<ProcessSockets> {
    let Some(origin) = Origin::find(resolver.root()) else {
        tracing::warn!(
            root = %resolver.root().display(),
            "cgroup of the agent is not below a visible cgroup2 mount: sockets are not adopted"
        );
        return Vec::new();
    };
    let own = Mounts::own().unwrap_or_default();
    tgids
        .into_iter()
        .filter_map(|tgid| process(tgid, &origin, &own, resolver))
        .collect()
}

/// Path of a process's cgroup below the guarded root; `None` when it is gone or elsewhere.
#[must_use]
pub fn cgroup_of_process(resolver: &Resolver, tgid: u32) -> Option<PathBuf> {
    let origin = Origin::find(resolver.root())?;
    origin.below_root(&cgroup_of(&directory(tgid))?)
}

/// Tells the processes below the guarded root from others.
pub struct Guarded(Origin);

impl Guarded {
    /// Of a guarded root; `None` where it is not below a visible cgroup2 mount.
    #[must_use]
    pub fn new(root: &Path) -> Option<Self> {
        Origin::find(root).map(Self)
    }

    /// Whether that is every process.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.namespace == Path::new("/") && self.0.guarded == Path::new("/")
    }

    /// Whether the process with this directory below `/proc` is one; not when it is gone.
    #[must_use]
    pub fn holds(&self, process: &Path) -> bool {
        cgroup_of(process).is_some_and(|path| self.0.below_root(&path).is_some())
    }
}

fn process(
    tgid: u32,
    origin: &Origin,
    own: &Mounts,
    resolver: &Resolver,
) -> Option<ProcessSockets> {
    let directory = directory(tgid);
    let shown = cgroup_of(&directory)?;
    let path = origin.below_root(&shown)?;
    let cgroup_id = if is_cut(&shown) {
        NOT_SHOWN
    } else {
        resolver.cgroup_at(&path).or_else(|| {
            let below = path.strip_prefix("/").ok()?;
            cgroup_id(&resolver.root().join(below)).ok()
        })?
    };
    let fds = sockets(&directory.join("fd"))?;
    if fds.is_empty() {
        return None;
    }
    let (uid, groups) = credentials(tgid)?;
    Some(ProcessSockets {
        tgid,
        uid,
        groups,
        comm: comm(&directory)?,
        cgroup_id,
        exe: executable(tgid, own),
        fds,
    })
}

/// What the kernel would see. It also knows of which user namespace a file system is: here one that the agent sees mounted
/// is the host's, and another one that of the process.
pub(super) fn executable(tgid: u32, own: &Mounts) -> Option<ExecutableKey> {
    let (file, mount) = Executable::of_process(tgid, own).ok()?;
    let namespace = |process: &Path| fs::read_link(process.join("ns/user")).ok();
    let is_own = || namespace(&directory(tgid)) == namespace(Path::new("/proc/self"));
    let is_known = own.by_device(mount.device).is_some() || is_own();
    Some(if mount.is_fuse() || !is_known {
        ExecutableKey::FOREIGN
    } else {
        file.key
    })
}

/// Path of the v2 cgroup, as seen from the cgroup namespace of the agent.
pub(super) fn cgroup_of(directory: &Path) -> Option<PathBuf> {
    let text = fs::read(directory.join("cgroup")).ok()?;
    let path = text
        .split(|b| *b == b'\n')
        .find_map(|line| line.strip_prefix(b"0::"))?;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}

/// Whether /proc may show only the beginning of a path.
fn is_cut(path: &Path) -> bool {
    path.as_os_str().len() >= MOST_SHOWN
}

/// Real user and groups of a process.
#[must_use]
pub fn credentials(tgid: u32) -> Option<(u32, Groups)> {
    read_credentials(&fs::read(directory(tgid).join("status")).ok()?)
}

fn read_credentials(status: &[u8]) -> Option<(u32, Groups)> {
    let numbers = |name: &str| -> Option<Vec<u32>> {
        let mut lines = status.split(|b| *b == b'\n');
        let line = lines.find_map(|line| line.strip_prefix(name.as_bytes()))?;
        let words = std::str::from_utf8(line).ok()?.split_whitespace();
        words.map(|word| word.parse().ok()).collect()
    };
    let uid = *numbers("Uid:")?.first()?;
    let real = *numbers("Gid:")?.first()?;
    let all = numbers("Groups:")?.into_iter().chain([real]);
    Some((uid, Groups::All(all.collect())))
}

pub(super) fn comm(directory: &Path) -> Option<[u8; 16]> {
    let text = fs::read(directory.join("comm")).ok()?;
    let name = text.strip_suffix(b"\n").unwrap_or(&text);
    let mut comm = [0; 16];
    for (to, from) in comm.iter_mut().take(15).zip(name) {
        *to = *from;
    }
    Some(comm)
}

pub(super) fn sockets(directory: &Path) -> Option<Vec<(i32, u64)>> {
    let entries = fs::read_dir(directory).ok()?;
    let sockets = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let target = fs::read_link(entry.path()).ok()?;
        let inode = target
            .to_str()?
            .strip_prefix("socket:[")?
            .strip_suffix(']')?;
        Some((
            entry.file_name().to_str()?.parse().ok()?,
            inode.parse().ok()?,
        ))
    });
    Some(sockets.collect())
}

/// How paths in `/proc/PID/cgroup` relate to the guarded root. They are relative to the root of the
/// reader's cgroup namespace; what lies outside starts with `/..`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// Root of the cgroup namespace, counted from the top of the cgroup2 mount.
    namespace: PathBuf,
    /// The guarded root, counted from there too.
    guarded: PathBuf,
}

impl Origin {
    /// Of a guarded root; `None` where it is not below a visible cgroup2 mount.
    pub(super) fn find(root: &Path) -> Option<Self> {
        let root = root.canonicalize().ok()?;
        let mounts = Mounts::own().ok()?;
        let mount = mounts.cgroup2_of(&root)?;
        let below = Path::new("/").join(root.strip_prefix(&mount.point).ok()?);
        let above = mount
            .root
            .components()
            .any(|part| part == Component::ParentDir);
        if !above {
            return Some(Self {
                namespace: "/".into(),
                guarded: mount.root.join(below.strip_prefix("/").ok()?),
            });
        }
        // The names above the namespace's root are hidden: the tree shows where the agent is.
        let inside = cgroup_of(Path::new("/proc/self"))?;
        let own = Path::new("/").join(find_self(&mount.point)?.strip_prefix(&mount.point).ok()?);
        let up = inside
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
            .count();
        Some(Self {
            namespace: own.ancestors().nth(up)?.into(),
            guarded: below,
        })
    }

    /// A path of `/proc/PID/cgroup` counted from the guarded root; `None` outside of it.
    pub(super) fn below_root(&self, path: &Path) -> Option<PathBuf> {
        let mut whole = self.namespace.clone();
        for part in path.components() {
            match part {
                Component::Normal(name) => whole.push(name),
                Component::ParentDir => {
                    if !whole.pop() {
                        return None;
                    }
                }
                Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
            }
        }
        let below = whole.strip_prefix(&self.guarded).ok()?;
        Some(Path::new("/").join(below))
    }
}

/// The cgroup directory below a mount point that lists this process.
fn find_self(mount: &Path) -> Option<PathBuf> {
    let own = process::id().to_string();
    let mut pending = vec![mount.to_path_buf()];
    while let Some(directory) = pending.pop() {
        let listed = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        if listed.lines().any(|line| line == own) {
            return Some(directory);
        }
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        pending.extend(directories.map(|entry| entry.path()));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_the_real_user_and_all_groups() {
        let status = b"Name:\tGroups: 9\nUid:\t7\t0\t0\t0\nGid:\t30\t1\t1\t1\nFDSize:\t64\nGroups:\t4 24 4294967294 \n";
        let all = Groups::All([4, 24, 30, 4_294_967_294].into());
        assert_eq!(read_credentials(status), Some((7, all)));
        let none = b"Uid:\t0\t0\nGid:\t0\t0\nGroups:\t \n";
        let real = Groups::All([0].into());
        assert_eq!(read_credentials(none), Some((0, real)));
        assert_eq!(read_credentials(b"Uid:\t0\t0\nGid:\t0\t0\n"), None);
        assert_eq!(read_credentials(b"Uid:\n"), None);
    }

    #[test]
    fn paths_are_read_relative_to_the_namespace_and_the_guarded_root() {
        let plain = Origin {
            namespace: "/".into(),
            guarded: "/guard".into(),
        };
        let inside = Origin {
            namespace: "/pods/own".into(),
            guarded: "/".into(),
        };
        let cases = [
            (&plain, "/guard", Some("/")),
            (&plain, "/guard/a b/c", Some("/a b/c")),
            (&plain, "/guardian", None),
            (&plain, "/", None),
            (&inside, "/", Some("/pods/own")),
            (&inside, "/../other/x", Some("/pods/other/x")),
            (&inside, "/../../system.slice", Some("/system.slice")),
            (&inside, "/../../../x", None),
        ];
        for (origin, path, expected) in cases {
            let found = origin.below_root(Path::new(path));
            assert_eq!(
                found.as_deref(),
                expected.map(Path::new),
                "{origin:?} {path}"
            );
        }
    }
}
