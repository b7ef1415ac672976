//! Network namespaces of this host: which there are, and running something inside them.
//!
//! Owns the search (`/proc/PID/ns/net` and the mounted ones) and the threads that enter; never moves the
//! calling thread, never keeps a namespace alive longer than a [`Namespace`] lives. Not found: a
//! namespace that only a thread other than a process's first, while that goes on, or only an open descriptor, stands in.

pub(super) mod held;

use std::{
    collections::HashSet,
    fs::{self, File},
    io, mem,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd},
        unix::{ffi::OsStrExt, fs::MetadataExt, net::UnixDatagram},
    },
    path::{Path, PathBuf},
    thread,
};

use nix::sched::{CloneFlags, setns};

/// Threads of a process that are looked at, where its first one has ended.
const THREADS: usize = 16;

/// Device and inode number of the namespace's file: one namespace's for as long as that lives.
pub(super) type NamespaceId = (u64, u64);

/// A namespace that is held open.
#[derive(Debug)]
pub(super) struct Namespace {
    pub id: NamespaceId,
    file: File,
}

impl Namespace {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let found = file.metadata()?;
        Ok(Self {
            id: (found.dev(), found.ino()),
            file,
        })
    }

    /// The user who can have made it and chooses its addresses, if it is not of this process's user namespace: the
    /// maker of the outermost user namespace that it is in. What he nests in that, with the ids that were given
    /// to it, is his too.
    ///
    /// # Errors
    /// The kernel's (`ioctl_nsfs(2)`).
    pub(super) fn foreign_owner(&self) -> io::Result<Option<u32>> {
        let own = File::open("/proc/self/ns/user")?;
        let mut outermost = None;
        let mut users = related(&self.file, libc::NS_GET_USERNS)?;
        while !is_same(&users, &own)? {
            // Ends: the kernel refuses what is above this process's (EPERM).
            let above = related(&users, libc::NS_GET_PARENT)?;
            outermost = Some(std::mem::replace(&mut users, above));
        }
        outermost.as_ref().map(maker).transpose()
    }

    /// The calling thread's.
    pub(super) fn own() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }
}

/// Another namespace that one leads to (`NS_GET_USERNS`, `NS_GET_PARENT`).
fn related(namespace: &File, request: libc::Ioctl) -> io::Result<File> {
    // SAFETY: the descriptor is open, and the request has no argument.
    let found = unsafe { libc::ioctl(namespace.as_raw_fd(), request) };
    if found < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call answered with a new descriptor that nobody else owns.
    Ok(unsafe { File::from_raw_fd(found) })
}

/// Who made a user namespace.
fn maker(users: &File) -> io::Result<u32> {
    let mut owner: libc::uid_t = 0;
    // SAFETY: the descriptor is open; the kernel writes one user id.
    let asked = unsafe { libc::ioctl(users.as_raw_fd(), libc::NS_GET_OWNER_UID, &raw mut owner) };
    if asked < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(owner)
}

fn is_same(one: &File, other: &File) -> io::Result<bool> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// Every namespace but the calling thread's; with `skip`, without those.
pub(super) fn others(skip: impl Fn(NamespaceId) -> bool) -> io::Result<Vec<Namespace>> {
    let mut found = Vec::new();
    walk(skip, |namespace| found.push(namespace))?;
    Ok(found)
}

/// Hands on every namespace but the calling thread's, once.
pub(super) fn each_other(each: impl FnMut(Namespace)) -> io::Result<()> {
    walk(|_| false, each)
}

fn walk(skip: impl Fn(NamespaceId) -> bool, mut each: impl FnMut(Namespace)) -> io::Result<()> {
    let mut seen = HashSet::from([Namespace::own()?.id]);
    // Answers whether there is anything.
    let mut add = |path: &Path| {
        // What is gone or can't be read has no sockets of a process that still runs.
        let Ok(meta) = fs::metadata(path) else {
            return false;
        };
        let id = (meta.dev(), meta.ino());
        if !seen.contains(&id)
            && !skip(id)
            && let Ok(namespace) = Namespace::open(path)
            && seen.insert(namespace.id)
        {
            each(namespace);
        }
        true
    };
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        if name.as_bytes().first().is_some_and(u8::is_ascii_digit) {
            let process = entry.path();
            let _known = add(&process.join("ns/net"))
                || threads(&process).any(|thread| add(&thread.join("ns/net")));
        }
    }
    for path in mounts() {
        let _known = add(&path);
    }
    Ok(())
}

/// Directories of the first threads of a process, one of which tells what the process can't when its very first one has
/// ended.
pub(super) fn threads(process: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let threads = fs::read_dir(process.join("task")).into_iter().flatten();
    threads.take(THREADS).flatten().map(|thread| thread.path())
}

/// Where network namespaces are mounted.
pub(super) fn mounts() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(mounted);
    points.map(Path::to_path_buf).collect()
}

/// Mount point, if the line of mountinfo is that of a network namespace (`ip netns`, container runtimes).
fn mounted(line: &str) -> Option<&Path> {
    let mut fields = line.split(' ').skip(3);
    let root = fields.next()?;
    let point = fields.next()?;
    root.starts_with("net:[").then(|| Path::new(point))
}

/// Runs `work` inside each namespace, one after the other, in a thread that ends afterwards. The results
/// are in the order of `namespaces`; what could not be entered is an error.
pub(super) fn inside<T: Send>(
    namespaces: &[Namespace],
    mut work: impl FnMut(&Namespace) -> io::Result<T> + Send,
) -> io::Result<Vec<io::Result<T>>> {
    if namespaces.is_empty() {
        return Ok(Vec::new());
    }
    let run = move || {
        let mut one = |namespace: &Namespace| {
            setns(&namespace.file, CloneFlags::CLONE_NEWNET)?;
            work(namespace)
        };
        namespaces.iter().map(&mut one).collect()
    };
    thread::scope(|scope| {
        let name = thread::Builder::new().name("netns".into());
        let handle = name.spawn_scoped(scope, run)?;
        handle
            .join()
            .map_err(|_| io::Error::other("the thread inside the namespace panicked"))
    })
}

/// `SO_NETNS_COOKIE` of the calling thread's namespace.
pub(super) fn cookie() -> io::Result<u64> {
    // This family is not seen by the cgroup hooks, neither ours nor others'.
    cookie_of(UnixDatagram::unbound()?.as_fd())
}

/// `SO_NETNS_COOKIE` of a socket.
pub(super) fn cookie_of(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    const { assert!(mem::size_of::<u64>() == 8) };
    // SAFETY: the descriptor is borrowed, so it is open; `cookie` and `length` live across the call, and
    // the kernel writes at most `length` bytes, which is the size of `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}

#[cfg(test)]
pub(super) mod testing;

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::{testing::Guest, *};

    #[test]
    fn namespace_of_another_process_is_found_once_and_has_its_own_cookie()
    -> Result<(), Box<dyn Error>> {
        let guest = Guest::start()?;
        let found = others(|_| false)?;
        let ids: Vec<_> = found.iter().map(|namespace| namespace.id).collect();
        let distinct: HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        assert!(ids.contains(&guest.id()?));
        assert!(!ids.contains(&Namespace::own()?.id));
        let own = cookie()?;
        for theirs in inside(&found, |_| cookie())? {
            assert_ne!(theirs?, own);
        }
        assert_eq!(cookie()?, own, "the calling thread was moved");

        let id = guest.id()?;
        assert!(others(|other| other == id)?.iter().all(|n| n.id != id));
        Ok(())
    }

    #[test]
    fn mounted_namespaces_are_told_from_other_mounts() {
        let line = "90 30 0:4 net:[4026532280] /run/netns/x rw shared:1 - nsfs nsfs rw";
        assert_eq!(mounted(line), Some(Path::new("/run/netns/x")));
        let line = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        assert_eq!(mounted(line), None);
    }
}
