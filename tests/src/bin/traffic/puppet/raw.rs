//! System calls for which the standard library has no safe form, or only one for all threads at once.

use std::{
    ffi::c_void,
    fs, io,
    os::fd::{BorrowedFd, RawFd},
    process::{exit, id},
    thread,
    time::Duration,
};

use nix::{
    libc,
    sched::{CloneFlags, clone},
    sys::{
        socket::{SockaddrLike as _, SockaddrStorage, connect},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, fork as fork_process},
};
use ringfence_tests::Outcome;

use super::{Failed, Result, at, done, failure};

/// Bytes of the stack on which a child runs that shares this process's memory.
const STACK: usize = 64 << 10;

/// The descriptor of a script's number; a call with one that is not open fails with `EBADF`.
pub fn borrowed<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: scripts name small positive numbers, never -1; nothing is closed on drop.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Gives `from` the number `to`, which stays open over `exec`.
pub fn move_descriptor(from: RawFd, to: RawFd) -> nix::Result<()> {
    // SAFETY: both calls take integers and touch no memory; both numbers are the script's own.
    let (moved, closed) = unsafe { (libc::dup2(from, to), libc::close(from)) };
    nix::errno::Errno::result(moved.min(closed)).map(drop)
}

/// Real and effective user of the calling thread alone (the library's call sets those of all threads);
/// -1 leaves one as it is.
pub fn set_uid(real: i64, effective: i64) -> nix::Result<()> {
    // SAFETY: the call takes integers and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, real, effective, -1) };
    nix::errno::Errno::result(result).map(drop)
}

/// The same of its groups.
pub fn set_gid(real: i64, effective: i64) -> nix::Result<()> {
    // SAFETY: the call takes integers and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_setresgid, real, effective, -1) };
    nix::errno::Errno::result(result).map(drop)
}

/// The only supplementary group of the calling thread.
pub fn set_group(gid: libc::gid_t) -> nix::Result<()> {
    // SAFETY: the kernel reads one number, which outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, 1, &raw const gid) };
    nix::errno::Errno::result(result).map(drop)
}

/// The child goes on; the parent waits for it and ends with it.
pub fn fork() -> Result<Outcome> {
    // SAFETY: this thread is the only one, so the child finds no lock taken.
    match unsafe { fork_process() }.map_err(at("fork"))? {
        ForkResult::Child => Ok(done("fork")),
        ForkResult::Parent { child } => {
            let ended = waitpid(child, None);
            exit(i32::from(ended != Ok(WaitStatus::Exited(child, 0))));
        }
    }
}

/// Ends the calling thread alone.
pub fn end_thread() -> ! {
    // SAFETY: the call takes an integer and does not return; the stack stays mapped.
    let _never = unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("the thread goes on")
}

/// Waits until the first thread of this process is a zombie.
pub fn first_thread_ended() -> io::Result<()> {
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", id()))?;
        if status.contains("State:\tZ") {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Connects in a child that shares this process's memory, as between `vfork` and `exec`. The answer names
/// the child.
pub fn vfork_connect(fd: RawFd, target: &SockaddrStorage) -> Result<Outcome> {
    let mut stack = vec![0; STACK];
    let call = Box::new(|| match connect(fd, target) {
        Ok(()) => 0,
        Err(error) => error as isize,
    });
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // SAFETY: this process sleeps until the child has ended, which only makes a system call.
    let child =
        unsafe { clone(call, &mut stack, flags, Some(libc::SIGCHLD)) }.map_err(at("vfork"))?;
    let ended = waitpid(child, None).map_err(at("vfork"))?;
    let WaitStatus::Exited(_, error) = ended else {
        return Err(Failed("vfork", io::ErrorKind::Other.into()));
    };
    let outcome = if error == 0 {
        done("connect")
    } else {
        failure(&Failed("connect", io::Error::from_raw_os_error(error)))
    };
    Ok(Outcome {
        pid: child.as_raw().unsigned_abs(),
        ..outcome
    })
}

/// Address and length of a socket address, for calls that take them apart.
pub fn parts(target: &SockaddrStorage) -> (*const libc::sockaddr, libc::socklen_t) {
    let address: *const c_void = target.as_ptr().cast();
    (address.cast(), target.len())
}
