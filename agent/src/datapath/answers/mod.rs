//! Sends answers to refused packets, in whichever network namespace they came in.
//!
//! Owns one pair of raw sockets for each namespace in use, which only send. Never decides: the programs have
//! refused already, and what is sent here changes nothing for them.

pub mod packet;

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
};

use aya::maps::RingBuf;
use ringfence_common::abi::{Unanswered, names};
use socket2::{Domain, Protocol, Socket, Type};

use self::packet::Kind;
use super::{
    error::{DatapathError, io_error},
    netns::held::{HeldOpen, SearchError},
    ring::Ring,
};

/// `IPPROTO_RAW`: packets with their IP header, and none are received (`raw(7)`).
const WITH_HEADER: i32 = 255;

/// Refused packets that may be answered.
pub type Refused = Ring<Unanswered>;

/// Registers the ring of refused packets.
pub(super) fn ring(map: aya::maps::Map) -> Result<Refused, DatapathError> {
    let failed = DatapathError::map(names::UNANSWERED);
    let ring = match RingBuf::try_from(map) {
        Ok(ring) => Ring::new(ring),
        Err(error) => Err(io_error(error)),
    };
    ring.map_err(failed)
}

/// Sockets of one namespace. A kernel without IPv6 has only the first.
struct Sockets {
    v4: Socket,
    v6: Option<Socket>,
}

impl Sockets {
    fn open() -> io::Result<Self> {
        let open = |domain| -> io::Result<Socket> {
            let protocol = Some(Protocol::from(WITH_HEADER));
            let socket = Socket::new(domain, Type::RAW, protocol)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        Ok(Self {
            v4: open(Domain::IPV4)?,
            v6: match open(Domain::IPV6) {
                Ok(socket) => Some(socket),
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
                Err(error) => return Err(error),
            },
        })
    }
}

/// Why a packet was not answered.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// No socket, or the kernel does not take the packet: no route, a broadcast address, a full queue.
    #[error("{0}")]
    Send(#[from] io::Error),
    /// The packet's namespace can't be entered.
    #[error("its network namespace can't be entered: {0}; run the agent with CAP_SYS_ADMIN")]
    Enter(io::Error),
    /// No process and no mount stands for the namespace.
    #[error("its network namespace is gone")]
    NoNamespace,
    /// It is none that may be answered.
    #[error("it is none that may be answered")]
    NoAnswer,
}

/// Sends answers; keep one and use it from one thread that may block.
pub struct Answerer {
    kind: Kind,
    sockets: HeldOpen<Sockets>,
}

impl Answerer {
    /// One whose own namespace is the calling thread's.
    ///
    /// # Errors
    /// The kernel's: `EPERM` without `CAP_NET_RAW`.
    pub fn new(kind: Kind) -> io::Result<Self> {
        let sockets = HeldOpen::new(Sockets::open)?;
        Ok(Self { kind, sockets })
    }

    /// Answers a refused packet.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn answer(&mut self, refused: &Unanswered) -> Result<(), AnswerError> {
        let answer = packet::answer(self.kind, refused).ok_or(AnswerError::NoAnswer)?;
        let sockets = match self.sockets.get(refused.netns) {
            Ok(found) => found.ok_or(AnswerError::NoNamespace)?,
            Err(SearchError::List(error) | SearchError::Enter(error)) => {
                return Err(AnswerError::Enter(error));
            }
        };
        let (socket, to) = match answer.to {
            IpAddr::V4(_) => (&sockets.v4, SocketAddr::new(answer.to, 0)),
            IpAddr::V6(to) => {
                let socket = sockets.v6.as_ref().ok_or(AnswerError::NoNamespace)?;
                // The device counts for link-local addresses only.
                let to = SocketAddrV6::new(to, 0, 0, refused.device);
                (socket, to.into())
            }
        };
        let _all = socket.send_to(&answer.bytes, &to.into())?;
        Ok(())
    }

    /// Lets go of namespaces that were not used for a while.
    pub fn release_unused(&mut self) {
        self.sockets.release_unused();
    }
}
