//! Wire format of `NETLINK_SOCK_DIAG` (man page `sock_diag`): requests about one socket of one namespace.
//!
//! Owns the bytes; never decides which socket is meant. Requests block for at most a second.

mod listing;

pub use listing::FlowState;
pub(super) use listing::{CLOSE, CONNECTED, EVERY_STATE, LISTEN, Listed};

use std::{io, io::Read, time::Duration};

use ringfence_common::{abi::Tuple, logic::address};
use socket2::{Domain, Protocol, Socket, Type};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const ONE: u16 = 0x5;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const ALL: u16 = 0x301;

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct inet_diag_sockid`.
const SOCKET_ID: usize = 48;
/// Where `inet_diag_sockid` stands in `struct inet_diag_msg`.
const ID_IN_REPLY: usize = 4;
/// Where `idiag_cookie` stands in `inet_diag_sockid`.
const COOKIE_IN_ID: usize = 40;

/// How long the kernel may take for a reply.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Which socket is meant: `inet_diag_sockid` with its family and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SocketId {
    family: u8,
    protocol: u8,
    id: [u8; SOCKET_ID],
}

impl SocketId {
    /// The socket of the family ([`libc::AF_INET`] or [`libc::AF_INET6`]) with exactly these addresses
    /// and this cookie, not bound to an interface.
    pub fn new(family: u8, tuple: &Tuple, cookie: u64) -> Self {
        let mut id = Vec::with_capacity(SOCKET_ID);
        id.extend(tuple.local_port.to_be_bytes());
        id.extend(tuple.remote_port.to_be_bytes());
        for address in [tuple.local, tuple.remote] {
            let v4 = i32::from(family) == libc::AF_INET;
            let start = if v4 { 12 } else { 0 };
            id.extend(address.iter().skip(start));
            id.extend(std::iter::repeat_n(0, start));
        }
        id.extend([0; 4]);
        // Two words, the lower one first; each in host order.
        id.extend((cookie & u64::from(u32::MAX)).to_le_bytes().iter().take(4));
        id.extend((cookie >> 32).to_le_bytes().iter().take(4));
        Self {
            family,
            protocol: tuple.protocol,
            id: id.try_into().unwrap_or([0; SOCKET_ID]),
        }
    }

    /// Families that a socket with these addresses can have, the likelier one first.
    pub fn families(tuple: &Tuple) -> &'static [u8] {
        const V4: u8 = 2;
        const V6: u8 = 10;
        const { assert!(V4 as i32 == libc::AF_INET && V6 as i32 == libc::AF_INET6) };
        if address::is_mapped_v4(&tuple.local) || address::is_mapped_v4(&tuple.remote) {
            &[V4, V6]
        } else {
            &[V6, V4]
        }
    }

    /// As a whole message: `nlmsghdr`, then `inet_diag_req_v2`.
    fn message(&self, kind: u16, flags: u16, states: u32, sequence: u32) -> Vec<u8> {
        const LENGTH: u32 = 72;
        const { assert!(LENGTH as usize == HEADER + 8 + SOCKET_ID) };
        let mut out = Vec::with_capacity(HEADER + 8 + SOCKET_ID);
        out.extend(LENGTH.to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(flags.to_ne_bytes());
        out.extend(sequence.to_ne_bytes());
        out.extend([0; 4]);
        out.extend([self.family, self.protocol, 0, 0]);
        out.extend(states.to_ne_bytes());
        out.extend(self.id);
        out
    }

    fn cookie(&self) -> &[u8] {
        self.id.get(COOKIE_IN_ID..).unwrap_or_default()
    }
}

/// A netlink socket; it stays in the namespace where it was opened and keeps that alive.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Socket,
    sequence: u32,
}

impl Channel {
    /// Opens one in the calling thread's namespace.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::RAW,
            Some(Protocol::from(libc::NETLINK_SOCK_DIAG)),
        )?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Aborts the socket. `ENOENT`: there is none like it.
    pub fn destroy(&mut self, id: &SocketId) -> io::Result<()> {
        self.exchange(id, SOCK_DESTROY, ONE, u32::MAX, |_| ())
    }

    /// The socket with `id`'s family, ports and cookie, whatever its addresses and its interface; the
    /// kernel walks its whole table.
    pub fn find(&mut self, id: &SocketId) -> io::Result<Option<SocketId>> {
        let mut found = None;
        self.exchange(id, SOCK_DIAG_BY_FAMILY, ALL, u32::MAX, |entry| {
            let Some(theirs) = entry.get(ID_IN_REPLY..ID_IN_REPLY + SOCKET_ID) else {
                return;
            };
            let Ok(theirs) = theirs.try_into() else {
                return;
            };
            let theirs = SocketId { id: theirs, ..*id };
            if theirs.cookie() == id.cookie() {
                found = Some(theirs);
            }
        })?;
        Ok(found)
    }

    /// Whether the kernel can abort TCP sockets. It answers `ENOENT` for a socket that does not exist,
    /// but also where it has no `tcp_diag` at all: a dump of no state tells these apart.
    pub fn supported(&mut self) -> io::Result<bool> {
        let tuple = Tuple {
            protocol: ringfence_common::abi::tuple::TCP,
            ..Tuple::default()
        };
        let [family, _] = SocketId::families(&tuple) else {
            return Ok(false);
        };
        let nobody = SocketId::new(*family, &tuple, 1);
        match self.exchange(&nobody, SOCK_DIAG_BY_FAMILY, ALL, 0, |_| ()) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(false),
            other => other?,
        }
        match self.destroy(&nobody).map_err(|error| error.raw_os_error()) {
            Ok(()) | Err(Some(libc::ENOENT | libc::ESTALE)) => Ok(true),
            Err(Some(libc::EOPNOTSUPP)) => Ok(false),
            Err(Some(code)) => Err(io::Error::from_raw_os_error(code)),
            Err(None) => Err(io::ErrorKind::Other.into()),
        }
    }

    fn exchange(
        &mut self,
        id: &SocketId,
        kind: u16,
        flags: u16,
        states: u32,
        entry: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.converse(|sequence| id.message(kind, flags, states, sequence), entry)
    }

    /// Sends the message that is made for a sequence number, and hands on every entry of the answer.
    fn converse(
        &mut self,
        message: impl FnOnce(u32) -> Vec<u8>,
        mut entry: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let _ = self.socket.send(&message(self.sequence))?;
        let mut buffer = vec![0; 32 * 1024];
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
                match reply.kind {
                    NLMSG_ERROR | NLMSG_DONE => return reply.result(),
                    _ => entry(reply.payload),
                }
            }
        }
    }
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

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}
