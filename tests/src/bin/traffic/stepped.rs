//! Becomes another program that waits at each of its steps until the test lets it go on.
//!
//! A step is a system call that changes what outlives the program. The filter is seccomp's
//! (`SECCOMP_RET_USER_NOTIF`): it holds the call before the kernel has begun it, in whichever thread.

use std::{
    ffi::OsString,
    io::IoSlice,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
};
use ringfence_tests::{Outcome, steps::CALLS};

use super::{Result, at, become_program};

/// Gives the listener of its steps to whoever listens at `socket`, then becomes the program.
pub fn become_stepped(socket: &Path, program: &[OsString]) -> Result<Outcome> {
    let stream = UnixStream::connect(socket).map_err(at("steps"))?;
    let listener = install().map_err(at("seccomp"))?;
    let passed = [listener.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&passed)];
    let data = [IoSlice::new(b"s")];
    let _sent = sendmsg::<()>(stream.as_raw_fd(), &data, &rights, MsgFlags::empty(), None)
        .map_err(at("steps"))?;
    drop(listener);
    become_program(program)
}

/// Holds every call of [`CALLS`] from now on, in this process and in what it becomes.
fn install() -> nix::Result<OwnedFd> {
    let statement = |code: u32, k: u32, jt: u8| libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt,
        jf: 0,
        k,
    };
    // The number of the call is the first field of `struct seccomp_data`.
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    let is = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    for (left, (call, _)) in (1..=CALLS.len()).rev().zip(CALLS) {
        let number = u32::try_from(*call).unwrap_or(u32::MAX);
        // Over those that are left and the statement that lets pass.
        filter.push(statement(is, number, u8::try_from(left).unwrap_or(u8::MAX)));
    }
    let back = libc::BPF_RET | libc::BPF_K;
    filter.push(statement(back, libc::SECCOMP_RET_ALLOW, 0));
    filter.push(statement(back, libc::SECCOMP_RET_USER_NOTIF, 0));
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap_or_default(),
        filter: filter.as_mut_ptr(),
    };
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: the program and its statements live until the call returns; the kernel copies them.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    let listener = RawFd::try_from(Errno::result(listener)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the call answered with a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}
