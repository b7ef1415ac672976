//! Wire format of `NETLINK_SOCK_DIAG` (man page `sock_diag`): requests about one socket of one namespace.
//!
//! Owns the bytes; never decides which socket is meant. Requests block for at most a second.

mod listing;

pub use listing::FlowState;
pub(super) use listing::{CLOSE, CONNECTED, EVERY_STATE, LISTEN, Listed};

use std::{io, ops::ControlFlow};

use ringfence_common::{abi::Tuple, logic::address};

use super::netlink::{ALL, Netlink, ONE};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

/// `struct inet_diag_sockid`.
const SOCKET_ID: usize = 48;
/// Where `inet_diag_sockid` stands in `struct inet_diag_msg`.
const ID_IN_REPLY: usize = 4;
/// Where `idiag_cookie` stands in `inet_diag_sockid`.
const COOKIE_IN_ID: usize = 40;

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

    /// The same as somebody who calls from this port would find it: of several that share a port the kernel chooses by
    /// that (`inet_ehashfn`).
    pub fn called_from(mut self, port: u16) -> Self {
        for (to, from) in self.id.iter_mut().skip(2).zip(port.to_be_bytes()) {
            *to = from;
        }
        self
    }

    /// `inet_diag_req_v2`.
    fn request(&self, states: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + SOCKET_ID);
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
pub(super) struct Channel(Netlink);

impl Channel {
    /// Opens one in the calling thread's namespace.
    pub fn open() -> io::Result<Self> {
        Netlink::open(libc::NETLINK_SOCK_DIAG).map(Self)
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
        self.converse(kind, flags, &id.request(states), entry)
    }

    /// Hands on every entry of the answer.
    fn converse(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut entry: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.0.converse(kind, flags, body, |payload| {
            entry(payload);
            ControlFlow::Continue(())
        })
    }
}
