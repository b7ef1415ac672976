//! The `bpf(2)` commands that aya does not offer: links that survive their program, batches, and
//! reading a link's state.

mod batch;

use std::{
    ffi::CString,
    io, mem,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

pub use self::batch::{delete_batch, lookup_id, update_batch};

/// `enum bpf_cmd` (`include/uapi/linux/bpf.h`).
const OBJ_PIN: i32 = 6;
const OBJ_GET: i32 = 7;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const LINK_CREATE: i32 = 28;
const LINK_UPDATE: i32 = 29;
const LINK_DETACH: i32 = 34;
/// `BPF_LINK_TYPE_CGROUP`, `BPF_LINK_TYPE_TCX`.
const KIND_CGROUP: u32 = 3;
const KIND_TCX: u32 = 11;

/// Runs one command; `attr` is the part of `union bpf_attr` that the command reads.
fn bpf<T>(command: i32, attr: &mut T) -> io::Result<i64> {
    // SAFETY: `attr` is a live, fully initialised `repr(C)` value of the given size; the kernel reads
    // and writes within that size only.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            mem::size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn bpf_fd<T>(command: i32, attr: &mut T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the command answered with a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Pins an object below a bpffs.
///
/// # Errors
/// The kernel's, for instance `EEXIST`.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = Object {
        path: path.as_ptr() as u64,
        fd: fd.as_raw_fd().cast_unsigned(),
        flags: 0,
    };
    bpf(OBJ_PIN, &mut attr).map(drop)
}

/// Opens a pinned object.
///
/// # Errors
/// The kernel's, for instance `ENOENT`.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = Object {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    bpf_fd(OBJ_GET, &mut attr)
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    extra: [u64; 4],
}

/// Attaches a program to a cgroup by a link. Links always stand beside other programs (they imply
/// `BPF_F_ALLOW_MULTI`).
///
/// # Errors
/// The kernel's: `EPERM` when an exclusive program of someone else is attached there.
pub fn link_create(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreate {
        program: program.as_raw_fd().cast_unsigned(),
        target: cgroup.as_raw_fd().cast_unsigned(),
        attach_type,
        flags: 0,
        extra: [0; 4],
    };
    bpf_fd(LINK_CREATE, &mut attr)
}

/// Attaches a tc program to a device of the calling thread's network namespace; `flags` say where among
/// others (`BPF_F_BEFORE`, …).
///
/// # Errors
/// The kernel's: `ENODEV`, `EEXIST` when the device has this program, `EINVAL` before 6.6.
pub fn device_link_create(
    program: BorrowedFd<'_>,
    device: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreate {
        program: program.as_raw_fd().cast_unsigned(),
        target: device,
        attach_type,
        flags,
        extra: [0; 4],
    };
    bpf_fd(LINK_CREATE, &mut attr)
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    new_program: u32,
    flags: u32,
    old_program: u32,
}

/// Puts another program of the same type behind a link, with no moment in between.
///
/// # Errors
/// The kernel's: `ENOLINK` when the cgroup of the link is gone.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdate {
        link: link.as_raw_fd().cast_unsigned(),
        new_program: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old_program: 0,
    };
    bpf(LINK_UPDATE, &mut attr).map(drop)
}

#[repr(C)]
struct LinkDetach {
    link: u32,
}

/// Ends what a cgroup link does, at once: programs that began before may still run. Removing its pin
/// alone would leave that to the kernel, some time later.
///
/// # Errors
/// The kernel's: `EINVAL` or `EBADF` for what is no link.
pub fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkDetach {
        link: link.as_raw_fd().cast_unsigned(),
    };
    bpf(LINK_DETACH, &mut attr).map(drop)
}

/// `struct bpf_link_info` of a cgroup link.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkInfo {
    kind: u32,
    /// Id of the link.
    pub id: u32,
    /// Id of the program behind it.
    pub program: u32,
    pad: u32,
    /// cgroup it is attached to, 0 = detached.
    pub cgroup: u64,
    /// `enum bpf_attach_type`.
    pub attach_type: u32,
    rest: [u32; 9],
}

impl LinkInfo {
    /// Whether it is a cgroup link, so that the other fields mean what they say.
    #[must_use]
    pub const fn is_cgroup(&self) -> bool {
        self.kind == KIND_CGROUP
    }

    /// Index of the device of a tcx link, 0 = detached; `None` of any other link.
    #[must_use]
    pub const fn device(&self) -> Option<u32> {
        // The field stands where a cgroup link has the lower half of the cgroup.
        if self.kind == KIND_TCX {
            Some((self.cgroup & 0xffff_ffff) as u32)
        } else {
            None
        }
    }
}

#[repr(C)]
#[expect(clippy::struct_field_names, reason = "the names of `union bpf_attr`")]
struct Info {
    fd: u32,
    length: u32,
    info: u64,
}

/// State of a cgroup link.
///
/// # Errors
/// The kernel's.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let length = u32::try_from(mem::size_of::<LinkInfo>()).map_err(io::Error::other)?;
    let mut attr = Info {
        fd: link.as_raw_fd().cast_unsigned(),
        length,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    let _ = bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

/// Waits until every program that runs now has ended (`synchronize_rcu`, by `membarrier(2)`).
///
/// # Errors
/// The kernel's.
pub fn wait_for_programs() -> io::Result<()> {
    const GLOBAL: i32 = 1;
    // SAFETY: the call takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
