//! Links of tc programs (`tcx`, kernel 6.6).

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crate::datapath::syscall;

/// `BPF_TCX_EGRESS` (`include/uapi/linux/bpf.h`).
const EGRESS: u32 = 47;
/// `BPF_F_BEFORE`: without a reference before every other program, so that none of them passes a frame on
/// first.
const FIRST: u32 = 1 << 3;

/// Attaches the program to a device of the calling thread's network namespace; `None` if the device is gone,
/// or has the program already (it came from another namespace).
///
/// # Errors
/// The kernel's.
pub fn attach(program: BorrowedFd<'_>, device: u32) -> io::Result<Option<OwnedFd>> {
    match syscall::device_link_create(program, device, EGRESS, FIRST) {
        Ok(link) => Ok(Some(link)),
        Err(error) => match error.raw_os_error() {
            Some(libc::EEXIST | libc::ENODEV) => Ok(None),
            Some(libc::EINVAL) => Err(io::Error::other(
                "this kernel has no tcx links (6.6 and later have)",
            )),
            _ => Err(error),
        },
    }
}

/// Whether it is a link of this kind.
pub fn is_one(link: BorrowedFd<'_>) -> bool {
    syscall::link_info(link.as_fd()).is_ok_and(|info| info.device().is_some())
}

/// Whether it is attached to a device.
pub fn is_alive(link: BorrowedFd<'_>) -> bool {
    let device = syscall::link_info(link).ok().and_then(|info| info.device());
    device.is_some_and(|device| device != 0)
}
