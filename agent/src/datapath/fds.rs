//! Sockets of other processes: taking a descriptor, and reading what the socket is.
//!
//! Never changes a socket. A process may end and its number be used again between two calls: compare
//! its start time, or the socket's inode, before believing what is read here.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
};

use ringfence_common::logic::address;
use socket2::{SockAddr, SockRef};

use super::netns;

/// An address, IPv4 mapped, and a port in host order.
pub type Endpoint = ([u8; 16], u16);

/// What the kernel says about a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketFacts {
    /// Address family (`SO_DOMAIN`).
    pub family: i32,
    /// `SOCK_STREAM`, `SOCK_DGRAM`, ... (`SO_TYPE`).
    pub kind: i32,
    /// IANA protocol number for the IP families (`SO_PROTOCOL`).
    pub protocol: i32,
    /// `SO_COOKIE`, equal in all namespaces of the host.
    pub cookie: u64,
    /// `SO_NETNS_COOKIE`.
    pub netns: u64,
    /// Where an IP socket is bound; `None` if it is not, or has another family.
    pub local: Option<Endpoint>,
    /// Whom an IP socket is connected to.
    pub remote: Option<Endpoint>,
    /// Whether it listens (`SO_ACCEPTCONN`).
    pub listening: bool,
}

impl SocketFacts {
    /// Reads the facts.
    ///
    /// # Errors
    /// `ENOTSOCK` if the descriptor is not a socket, else the kernel's.
    pub fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let options = SockRef::from(&socket);
        Ok(Self {
            family: options.domain()?.into(),
            kind: options.r#type()?.into(),
            protocol: options.protocol()?.map_or(0, i32::from),
            cookie: options.cookie()?,
            netns: netns::cookie_of(socket)?,
            local: endpoint(options.local_addr().ok()),
            // Fails where there is no peer.
            remote: endpoint(options.peer_addr().ok()),
            listening: options.is_listener()?,
        })
    }
}

/// Takes a copy of a process's descriptor. The copy is closed on exec. Where its first thread has ended, another one is
/// asked, which kernels before 6.9 refuse.
///
/// # Errors
/// `ESRCH`: the process is gone; `EBADF`: it has no such descriptor, or only its first thread can be asked; `EPERM`:
/// `CAP_SYS_PTRACE` is missing.
pub fn socket_of(tgid: u32, fd: RawFd) -> io::Result<OwnedFd> {
    let first = copy(tgid, 0, fd);
    // Linux 6.9 and newer say ESRCH of a thread that has ended.
    let ended = [Some(libc::EBADF), Some(libc::ESRCH)];
    if !matches!(&first, Err(error) if ended.contains(&error.raw_os_error())) {
        return first;
    }
    let threads = netns::threads(Path::new(&format!("/proc/{tgid}")));
    let mut threads = threads.filter_map(|thread| thread.file_name()?.to_str()?.parse().ok());
    threads
        .find_map(|thread| copy(thread, libc::PIDFD_THREAD, fd).ok())
        .map_or(first, Ok)
}

fn copy(pid: u32, flags: u32, fd: RawFd) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) })?;
    let pidfd = process.as_fd().as_raw_fd();
    // SAFETY: pidfd_getfd takes three integers and touches no memory of ours; `process` outlives the call.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd, fd, 0) })
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(result).map_err(io::Error::other)?;
    // SAFETY: only results of pidfd_open and pidfd_getfd come here: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn endpoint(address: Option<SockAddr>) -> Option<Endpoint> {
    match address?.as_socket()? {
        any if any.ip().is_unspecified() && any.port() == 0 => None,
        SocketAddr::V4(v4) => Some((address::map_v4(v4.ip().octets()), v4.port())),
        SocketAddr::V6(v6) => Some((v6.ip().octets(), v6.port())),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        error::Error,
        fs::File,
        io::{BufRead, BufReader},
        net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket},
        os::unix::net::UnixStream,
        process::{Child, Command, Stdio},
    };

    use super::*;

    type TestResult = Result<(), Box<dyn Error>>;

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn facts_of_connected_and_listening_sockets() -> TestResult {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let client = TcpStream::connect(("127.0.0.1", port))?;
        let localhost = address::map_v4([127, 0, 0, 1]);

        let facts = SocketFacts::of(listener.as_fd())?;
        assert!(facts.listening);
        assert_eq!((facts.local, facts.remote), (Some((localhost, port)), None));
        let facts = SocketFacts::of(client.as_fd())?;
        let own = client.local_addr()?.port();
        let expected = SocketFacts {
            family: libc::AF_INET,
            kind: libc::SOCK_STREAM,
            protocol: libc::IPPROTO_TCP,
            cookie: SockRef::from(&client).cookie()?,
            netns: netns::cookie()?,
            local: Some((localhost, own)),
            remote: Some((localhost, port)),
            listening: false,
        };
        assert_eq!(facts, expected);
        Ok(())
    }

    #[test]
    fn facts_of_other_sockets() -> TestResult {
        let any = UdpSocket::bind("[::]:0")?;
        let facts = SocketFacts::of(any.as_fd())?;
        let port = any.local_addr()?.port();
        assert_eq!(facts.local, Some((Ipv6Addr::UNSPECIFIED.octets(), port)));
        assert_eq!(facts.protocol, libc::IPPROTO_UDP);

        let unbound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
        assert_eq!(SocketFacts::of(unbound.as_fd())?.local, None);

        let (unix, _peer) = UnixStream::pair()?;
        let facts = SocketFacts::of(unix.as_fd())?;
        assert_eq!(facts.family, libc::AF_UNIX);
        assert_eq!((facts.local, facts.remote), (None, None));

        let file = File::open("/proc/self/status")?;
        let error = SocketFacts::of(file.as_fd()).err();
        let code = error.and_then(|error| error.raw_os_error());
        assert_eq!(code, Some(libc::ENOTSOCK));
        Ok(())
    }

    #[test]
    fn socket_of_another_process_is_the_same_socket() -> TestResult {
        let (ours, theirs) = UnixStream::pair()?;
        let cookie = SocketFacts::of(theirs.as_fd())?.cookie;
        let mut child = Command::new("sh");
        let child = child.args(["-c", "echo ready; exec sleep 60"]);
        let child = child
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .spawn();
        let mut child = Killed(child?);
        let mut line = String::new();
        let output = child.0.stdout.take().ok_or("no output")?;
        let _ = BufReader::new(output).read_line(&mut line)?;
        let copy = socket_of(child.0.id(), 0)?;
        assert_eq!(SocketFacts::of(copy.as_fd())?.cookie, cookie);
        drop(ours);
        Ok(())
    }

    #[test]
    fn what_is_gone_is_an_error() {
        let code = |result: io::Result<OwnedFd>| result.err().and_then(|e| e.raw_os_error());
        let own = std::process::id();
        assert_eq!(code(socket_of(own, 1_000_000)), Some(libc::EBADF));
        // The number is beyond the largest that a kernel gives.
        assert_eq!(code(socket_of(1 << 30, 0)), Some(libc::ESRCH));
        assert!(socket_of(u32::MAX, 0).is_err());
    }
}
