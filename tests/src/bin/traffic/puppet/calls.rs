//! System calls of attempts to get round a policy for which no crate of the tests has a safe form.

use std::{ffi::c_void, io, io::Write as _, mem::size_of_val, os::fd::RawFd, ptr};

use nix::{errno::Errno, libc, unistd::pipe};

/// `SO_ATTACH_REUSEPORT_CBPF` (`include/uapi/asm-generic/socket.h`).
const ATTACH_REUSEPORT: i32 = 51;

/// `setsockopt` with any level, name and value.
pub fn set_option(fd: RawFd, level: i32, name: i32, value: &[u8]) -> nix::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::EINVAL)?;
    let from: *const c_void = value.as_ptr().cast();
    // SAFETY: the kernel reads `length` bytes, which the slice has.
    let result = unsafe { libc::setsockopt(fd, level, name, from, length) };
    Errno::result(result).map(drop)
}

/// `connect` with `AF_UNSPEC`: takes the peer away (`connect(2)`).
pub fn disconnect(fd: RawFd) -> nix::Result<()> {
    let nobody = libc::sockaddr {
        sa_family: 0,
        sa_data: [0; 14],
    };
    // SAFETY: the kernel reads one address of the length that is passed.
    let result = unsafe { libc::connect(fd, &raw const nobody, 16) };
    Errno::result(result).map(drop)
}

/// Makes the socket with this index in the group get everything that comes for their shared port.
pub fn prefer(fd: RawFd, index: u32) -> nix::Result<()> {
    let mut always = libc::sock_filter {
        code: 6,
        jt: 0,
        jf: 0,
        k: index,
    };
    let program = libc::sock_fprog {
        len: 1,
        filter: &raw mut always,
    };
    let (from, length) = ((&raw const program).cast(), size_of_val(&program));
    let length = libc::socklen_t::try_from(length).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel copies the program and its one instruction, which both outlive the call.
    let result = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, ATTACH_REUSEPORT, from, length) };
    Errno::result(result).map(drop)
}

/// One byte of a file, by `sendfile`.
pub fn send_file(fd: RawFd) -> nix::Result<()> {
    let written = tempfile::tempfile().and_then(|mut file| file.write_all(b"q").map(|()| file));
    let file = written.map_err(|error| errno(&error))?;
    let from = std::os::fd::AsRawFd::as_raw_fd(&file);
    let mut place = 0;
    // SAFETY: the kernel reads and writes one number, which outlives the call.
    let sent = unsafe { libc::sendfile(fd, from, &raw mut place, 1) };
    Errno::result(sent).map(drop)
}

/// One byte of a pipe, by `splice`.
pub fn splice(fd: RawFd) -> nix::Result<()> {
    let (reader, writer) = pipe()?;
    let _written = nix::unistd::write(&writer, b"q")?;
    let from = std::os::fd::AsRawFd::as_raw_fd(&reader);
    // SAFETY: no pointer but null ones, which stand for the descriptors' own places.
    let sent = unsafe { libc::splice(from, ptr::null_mut(), fd, ptr::null_mut(), 1, 0) };
    Errno::result(sent).map(drop)
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
