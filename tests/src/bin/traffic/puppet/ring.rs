//! Socket calls by way of `io_uring`: from the process itself, or from the kernel thread that polls its ring.

use std::{io, os::fd::RawFd};

use io_uring::{IoUring, cqueue, opcode, squeue::Entry, types::Fd};
use nix::sys::socket::SockaddrStorage;
use ringfence_tests::Outcome;

use super::{Failed, Result, at, done, raw};

/// Milliseconds without work after which the polling thread sleeps.
const IDLE_MS: u32 = 1_000;

pub fn connect(polled: bool, fd: RawFd, target: &SockaddrStorage) -> Result<Outcome> {
    let (address, length) = raw::parts(target);
    let entry = opcode::Connect::new(Fd(fd), address, length).build();
    let _zero = submit(polled, &entry, "connect")?;
    Ok(done("connect"))
}

pub fn send(polled: bool, fd: RawFd) -> Result<Outcome> {
    static DATA: [u8; 1] = *b"q";
    let entry = opcode::Send::new(Fd(fd), DATA.as_ptr(), 1).build();
    let _sent = submit(polled, &entry, "send")?;
    Ok(done("send"))
}

/// Waits for the result.
fn submit(polled: bool, entry: &Entry, step: &'static str) -> Result<i32> {
    let mut builder = IoUring::builder();
    if polled {
        let _ = builder.setup_sqpoll(IDLE_MS);
    }
    let mut ring = builder.build(4).map_err(at("uring"))?;
    // SAFETY: what the entry points to outlives this function, which waits for its completion.
    let pushed = unsafe { ring.submission().push(entry) };
    pushed.map_err(|_| Failed("uring", io::ErrorKind::Other.into()))?;
    let _submitted = ring.submit_and_wait(1).map_err(at("uring"))?;
    let completed = ring.completion().next();
    let result = completed.map_or(-nix::libc::EIO, |entry: cqueue::Entry| entry.result());
    if result < 0 {
        return Err(Failed(step, io::Error::from_raw_os_error(-result)));
    }
    Ok(result)
}
