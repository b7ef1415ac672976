//! Sockets that are only made or bound, and ping sockets.

use std::{
    io::{self, Read as _},
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use clap::ValueEnum;
use nix::unistd::{Uid, setuid};
use ringfence_tests::Outcome;
use socket2::{Domain, Protocol as Number, SockAddr, Socket, Type};

use super::{Failed, Protocol, Result, at, done};

/// A unix socket that the caller makes, and that `user` listens on.
pub fn listen_as(path: &Path, user: u32) -> Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(at("socket"))?;
    let address = SockAddr::unix(path).map_err(at("bind"))?;
    socket.bind(&address).map_err(at("bind"))?;
    setuid(Uid::from_raw(user)).map_err(at("setuid"))?;
    socket.listen(16).map_err(at("listen"))?;
    Ok(socket)
}

/// A kind of socket.
#[derive(Clone, Copy, ValueEnum)]
pub enum Kind {
    /// `SOCK_RAW` of IPv4 with ICMP.
    Raw4,
    /// `SOCK_RAW` of IPv6 with ICMP.
    Raw6,
    /// Multipath TCP.
    Mptcp,
    /// UDP-Lite.
    UdpLite,
    /// SCTP.
    Sctp,
    /// Plain TCP, to compare with.
    Tcp,
    /// An ICMP datagram socket.
    Ping4,
}

impl Kind {
    fn parts(self) -> (Domain, Type, i32) {
        match self {
            Self::Raw4 => (Domain::IPV4, Type::RAW, 1),
            Self::Raw6 => (Domain::IPV6, Type::RAW, 58),
            Self::Mptcp => (Domain::IPV4, Type::STREAM, 262),
            Self::UdpLite => (Domain::IPV4, Type::DGRAM, 136),
            Self::Sctp => (Domain::IPV4, Type::STREAM, 132),
            Self::Tcp => (Domain::IPV4, Type::STREAM, 6),
            Self::Ping4 => (Domain::IPV4, Type::DGRAM, 1),
        }
    }
}

pub fn make_only(kind: Kind) -> Result<Outcome> {
    let (domain, kind, protocol) = kind.parts();
    let _socket = Socket::new(domain, kind, Some(Number::from(protocol))).map_err(at("socket"))?;
    Ok(done("done"))
}

pub fn bind_only(protocol: Protocol, address: SocketAddr) -> Result<Outcome> {
    let kind = match protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(address), kind, None).map_err(at("socket"))?;
    socket.bind(&address.into()).map_err(at("bind"))?;
    if protocol == Protocol::Tcp {
        socket.listen(1).map_err(at("listen"))?;
    }
    Ok(done("done"))
}

/// The kernel fills in identifier and checksum.
pub fn ping(address: IpAddr, connect: bool) -> Result<Outcome> {
    let (domain, protocol, request) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Number::ICMPV4, 8),
        IpAddr::V6(_) => (Domain::IPV6, Number::ICMPV6, 128),
    };
    let reply = if request == 8 { 0 } else { 129 };
    let mut socket = Socket::new(domain, Type::DGRAM, Some(protocol)).map_err(at("socket"))?;
    let wait = Some(Duration::from_secs(3));
    socket.set_read_timeout(wait).map_err(at("socket"))?;
    let target = SocketAddr::new(address, 0);
    if connect {
        socket.connect(&target.into()).map_err(at("connect"))?;
    }
    let message = [request, 0, 0, 0, 0, 0, 0, 1, b'p', b'i', b'n', b'g'];
    let _sent = if connect {
        socket.send(&message).map_err(at("send"))?
    } else {
        socket
            .send_to(&message, &target.into())
            .map_err(at("send"))?
    };
    let mut buffer = [0; 1500];
    let read = socket.read(&mut buffer).map_err(at("receive"))?;
    if buffer.first() != Some(&reply) {
        return Err(Failed("receive", io::ErrorKind::InvalidData.into()));
    }
    Ok(Outcome {
        received: u64::try_from(read).unwrap_or(0),
        ..done("done")
    })
}
