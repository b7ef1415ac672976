//! Conversations over netlink: a request, and the entries of its answer.
//!
//! Owns the frame of the messages; never what stands in them. A read blocks for at most a second.

use std::{
    io::{self, Read as _},
    ops::ControlFlow,
    os::fd::AsRawFd as _,
    time::Duration,
};

use nix::sys::socket::{NetlinkAddr, bind, connect};
use socket2::{Domain, Protocol, Socket, Type};

/// `struct nlmsghdr`.
pub const HEADER: usize = 16;
/// `NLM_F_REQUEST | NLM_F_ACK`.
pub const ONE: u16 = 0x5;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
pub const ALL: u16 = 0x301;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLA_F_NESTED` and the bit below it are no part of an attribute's type.
const TYPE: u16 = 0x3fff;

/// How long the kernel may take for a reply.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Larger than any part of an answer that the kernel makes (`netlink_dump`), bytes.
const BUFFER: usize = 32 * 1024;

/// A netlink socket; it stays in the namespace where it was opened and keeps that alive.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens one of the protocol (`NETLINK_*`) in the calling thread's namespace.
    pub fn open(protocol: i32) -> io::Result<Self> {
        let socket = socket(protocol)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        // To the kernel: nobody else's messages are taken in (`netlink_getsockbyportid`), which whoever has
        // CAP_NET_ADMIN in the namespace could send.
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Sends a request and hands on every entry of the answer until one is the last that is wanted: after that the
    /// socket is of no more use, as the kernel holds on to the rest.
    pub fn converse(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut entry: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(kind, flags, self.sequence, body)?;
        let _ = self.socket.send(&request)?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = match (&self.socket).read(&mut buffer) {
                // With a time-out the kernel does not go on after a signal.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let mut rest = buffer.get(..length).unwrap_or_default();
            if rest.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            while let Some((reply, tail)) = Reply::split(rest) {
                rest = tail;
                // An answer that came after its time-out.
                if reply.sequence != self.sequence {
                    continue;
                }
                if matches!(reply.kind, NLMSG_ERROR | NLMSG_DONE) {
                    return reply.result();
                }
                if entry(reply.payload).is_break() {
                    return Ok(());
                }
            }
        }
    }
}

/// A socket that is told of what happens to these groups of `NETLINK_ROUTE`; it does not block.
pub fn subscribe(groups: u32) -> io::Result<Socket> {
    let socket = socket(libc::NETLINK_ROUTE)?;
    socket.set_nonblocking(true)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

fn socket(protocol: i32) -> io::Result<Socket> {
    let family = Domain::from(libc::AF_NETLINK);
    Socket::new(family, Type::RAW, Some(Protocol::from(protocol)))
}

fn request(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> io::Result<Vec<u8>> {
    let length = HEADER + body.len();
    let word = u32::try_from(length).map_err(io::Error::other)?;
    let mut out = Vec::with_capacity(length);
    out.extend(word.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend([0; 4]);
    out.extend(body);
    Ok(out)
}

struct Reply<'a> {
    kind: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl<'a> Reply<'a> {
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let length = usize::try_from(word(bytes, 0)?).ok()?;
        let reply = Self {
            kind: u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?),
            sequence: word(bytes, 8)?,
            payload: bytes.get(HEADER..length)?,
        };
        let tail = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((reply, tail))
    }

    /// Both kinds start with a negative error number or zero; an old kernel's end may be empty.
    fn result(&self) -> io::Result<()> {
        match word(self.payload, 0).map_or(0, u32::cast_signed) {
            code if code < 0 => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            _ => Ok(()),
        }
    }
}

/// Attributes with their types, as far as they are whole.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & TYPE;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// In host order.
pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}
