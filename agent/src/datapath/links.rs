//! Attaching: every hook is a pinned link, so that enforcement outlives the agent. A link that is
//! already there gets the new program put behind it, with no moment in between.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::{error::DatapathError, syscall};

/// A program and where it is attached (`enum bpf_attach_type`).
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Name of the program.
    pub name: &'static str,
    /// Attach type.
    pub attach_type: u32,
}

/// Every hook that enforcement needs. Those that judge packets come last: they are the first to go when enforcement ends.
pub const HOOKS: [Hook; 14] = [
    Hook {
        name: "sock_create",
        attach_type: 2,
    },
    Hook {
        name: "setsockopt",
        attach_type: 22,
    },
    Hook {
        name: "sock_release",
        attach_type: 34,
    },
    Hook {
        name: "ops",
        attach_type: 3,
    },
    Hook {
        name: "bind4",
        attach_type: 8,
    },
    Hook {
        name: "bind6",
        attach_type: 9,
    },
    Hook {
        name: "post_bind4",
        attach_type: 12,
    },
    Hook {
        name: "post_bind6",
        attach_type: 13,
    },
    Hook {
        name: "connect4",
        attach_type: 10,
    },
    Hook {
        name: "connect6",
        attach_type: 11,
    },
    Hook {
        name: "sendmsg4",
        attach_type: 14,
    },
    Hook {
        name: "sendmsg6",
        attach_type: 15,
    },
    Hook {
        name: "ingress",
        attach_type: 0,
    },
    Hook {
        name: "egress",
        attach_type: 1,
    },
];

/// Attached where the kernel has BPF LSM (`BPF_LSM_CGROUP`): it refuses sockets that no other hook sees.
pub const SOCKET: Hook = Hook {
    name: "socket_create",
    attach_type: 43,
};

/// [`SOCKET`] and [`HOOKS`].
#[must_use]
pub fn every() -> impl DoubleEndedIterator<Item = Hook> {
    std::iter::once(SOCKET).chain(HOOKS)
}

/// One attached hook.
#[derive(Debug)]
pub struct Link {
    /// Name of the program.
    pub name: &'static str,
    fd: OwnedFd,
}

impl Link {
    /// Its descriptor, which keeps it attached.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Its state in the kernel; a link whose cgroup is gone has no cgroup.
    #[must_use]
    pub fn info(&self) -> Option<syscall::LinkInfo> {
        syscall::link_info(self.fd.as_fd()).ok()
    }
}

/// Attaches one hook to `cgroup`, or replaces the program behind its pinned link; a cgroup that it was
/// attached to instead goes into `left`.
///
/// # Errors
/// [`DatapathError::Attach`] or [`DatapathError::Pin`].
pub fn attach(
    hook: Hook,
    program: BorrowedFd<'_>,
    cgroup: &File,
    cgroup_id: u64,
    cgroup_path: &Path,
    directory: &Path,
    left: &mut BTreeSet<u64>,
) -> Result<Link, DatapathError> {
    let path = directory.join(hook.name);
    let refused = |source| DatapathError::Attach {
        name: hook.name,
        path: cgroup_path.to_path_buf(),
        source,
    };
    if let Some(fd) = adopt(&path, cgroup_id, left)? {
        syscall::link_update(fd.as_fd(), program).map_err(refused)?;
        return Ok(Link {
            name: hook.name,
            fd,
        });
    }
    let fd = syscall::link_create(program, cgroup.as_fd(), hook.attach_type).map_err(refused)?;
    syscall::pin(fd.as_fd(), &path).map_err(|source| DatapathError::Pin { path, source })?;
    Ok(Link {
        name: hook.name,
        fd,
    })
}

/// The link that is pinned at `path`, if it is still attached to the cgroup. One that is attached to
/// nothing, or to another cgroup, is removed.
fn adopt(
    path: &Path,
    cgroup_id: u64,
    left: &mut BTreeSet<u64>,
) -> Result<Option<OwnedFd>, DatapathError> {
    let pin_error = |source| DatapathError::Pin {
        path: PathBuf::from(path),
        source,
    };
    let fd = match syscall::open_pin(path) {
        Ok(fd) => fd,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(pin_error(error)),
    };
    let info = syscall::link_info(fd.as_fd()).map_err(pin_error)?;
    if info.cgroup == cgroup_id {
        return Ok(Some(fd));
    }
    fs::remove_file(path).map_err(pin_error)?;
    if info.cgroup != 0 {
        let _ = left.insert(info.cgroup);
    }
    Ok(None)
}

/// Ends what the link that is pinned at `path` does, at once, if it is a cgroup's.
///
/// # Errors
/// The kernel's.
pub fn detach(path: &Path) -> io::Result<()> {
    let link = match syscall::open_pin(path) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if syscall::link_info(link.as_fd()).is_ok_and(|info| info.is_cgroup()) {
        syscall::link_detach(link.as_fd())?;
    }
    Ok(())
}

/// The cgroups to which the links pinned in `directory` are attached.
pub fn cgroups_of(directory: &Path) -> BTreeSet<u64> {
    every()
        .filter_map(|hook| syscall::open_pin(&directory.join(hook.name)).ok())
        .filter_map(|link| syscall::link_info(link.as_fd()).ok())
        .filter(|info| info.is_cgroup() && info.cgroup != 0)
        .map(|info| info.cgroup)
        .collect()
}
