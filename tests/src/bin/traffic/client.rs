//! Calls: connect, send, read the answer.

use std::{
    io::{self, IoSlice, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use nix::{
    libc,
    sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg},
};
use ringfence_tests::Outcome;
use socket2::{Domain, SockAddr, Socket, Type};

use super::{Failed, Protocol, Result, at, done, failure, print};

/// A call.
#[derive(clap::Args)]
pub struct Call {
    protocol: Protocol,
    address: SocketAddr,
    /// Own address and port
    #[arg(long)]
    source: Option<SocketAddr>,
    /// Only through this device
    #[arg(long)]
    device: Option<String>,
    /// Bytes to send
    #[arg(long, default_value_t = 1)]
    send: usize,
    /// Bytes that the answer must have
    #[arg(long)]
    expect: Option<u64>,
    /// UDP: name the destination with each datagram instead of connecting
    #[arg(long)]
    unconnected: bool,
    /// UDP over IPv4, unconnected: the source address to put on the datagram, whatever the socket is
    /// bound to
    #[arg(long, requires = "unconnected")]
    pretend: Option<Ipv4Addr>,
    /// UDP over IPv4: broadcast, or multicast through the device that has this address
    #[arg(long)]
    by: Option<Ipv4Addr>,
    /// UDP: after the answer wait for a line on standard input, then do it again over the same socket
    #[arg(long)]
    twice: bool,
    /// IPv4 over an IPv6 socket
    #[arg(long)]
    mapped: bool,
    /// Longest wait for each step, milliseconds
    #[arg(long, default_value_t = 5_000)]
    timeout_ms: u64,
}

pub fn call(call: &Call) -> Outcome {
    let begun = Instant::now();
    let mut outcome = match call.protocol {
        Protocol::Tcp => tcp(call),
        Protocol::Udp => udp(call),
    }
    .unwrap_or_else(|failed| failure(&failed));
    outcome.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    if let (None, Some(expected)) = (&outcome.error, call.expect)
        && outcome.received != expected
    {
        outcome.error = Some(format!("{expected} bytes expected"));
    }
    outcome
}

fn tcp(call: &Call) -> Result<Outcome> {
    let socket = prepare(call, Type::STREAM)?;
    let wait = Duration::from_millis(call.timeout_ms);
    socket
        .connect_timeout(&target(call), wait)
        .map_err(at("connect"))?;
    let mut stream = TcpStream::from(socket);
    let local = stream.local_addr().ok();
    stream.set_read_timeout(Some(wait)).map_err(at("connect"))?;
    stream
        .write_all(&vec![b'q'; call.send])
        .and_then(|()| stream.shutdown(Shutdown::Write))
        .map_err(at("send"))?;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    Ok(Outcome {
        local,
        sent: count(call.send),
        received: count(answer.len()),
        ..end(read)
    })
}

fn udp(call: &Call) -> Result<Outcome> {
    let socket = UdpSocket::from(prepare(call, Type::DGRAM)?);
    let wait = Duration::from_millis(call.timeout_ms);
    socket.set_read_timeout(Some(wait)).map_err(at("socket"))?;
    let target = target(call)
        .as_socket()
        .ok_or_else(|| Failed("socket", io::ErrorKind::InvalidInput.into()))?;
    if !call.unconnected {
        socket.connect(target).map_err(at("connect"))?;
    }
    let outcome = exchange(call, &socket, target)?;
    if !call.twice {
        return Ok(outcome);
    }
    print(&outcome);
    let _end = io::stdin().read_line(&mut String::new());
    exchange(call, &socket, target)
}

fn exchange(call: &Call, socket: &UdpSocket, target: SocketAddr) -> Result<Outcome> {
    let data = vec![b'q'; call.send];
    let _sent = match (call.unconnected, call.pretend) {
        (false, _) => socket.send(&data),
        (true, None) => socket.send_to(&data, target),
        (true, Some(source)) => send_from(socket, source, target, &data),
    }
    .map_err(at("send"))?;
    let mut answer = vec![0; 65_536];
    let read = socket.recv(&mut answer);
    let received = read.as_ref().copied().unwrap_or(0);
    Ok(Outcome {
        local: socket.local_addr().ok(),
        sent: count(call.send),
        received: count(received),
        ..end(read)
    })
}

/// `IP_PKTINFO` (`ip(7)`).
fn send_from(
    socket: &UdpSocket,
    source: Ipv4Addr,
    target: SocketAddr,
    data: &[u8],
) -> io::Result<usize> {
    let info = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr {
            s_addr: u32::from_ne_bytes(source.octets()),
        },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let sent = sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(data)],
        &[ControlMessage::Ipv4PacketInfo(&info)],
        MsgFlags::empty(),
        Some(&SockaddrStorage::from(target)),
    );
    Ok(sent?)
}

/// Sends one byte to each port.
pub fn spray(address: SocketAddr, ports: u16) -> Result<Outcome> {
    let unspecified = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let socket = UdpSocket::bind(unspecified).map_err(at("bind"))?;
    let mut outcome = done("send");
    for port in (address.port()..).take(ports.into()) {
        match socket.send_to(b"q", SocketAddr::new(address.ip(), port)) {
            Ok(sent) => outcome.sent += count(sent),
            Err(error) => outcome.error = failure(&Failed("send", error)).error,
        }
    }
    print(&outcome);
    let _end = io::stdin().read_to_end(&mut Vec::new());
    Ok(outcome)
}

/// Says how many calls were refused with EPERM, as bytes sent.
pub fn knock(address: SocketAddr, times: u16, spread: bool) -> Result<Outcome> {
    let mut outcome = done("done");
    for step in 0..times {
        let port = address.port() + if spread { step } else { 0 };
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, None).map_err(at("socket"))?;
        let called = socket.connect(&SocketAddr::new(address.ip(), port).into());
        let refused = called.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM));
        outcome.sent += u64::from(refused);
    }
    Ok(outcome)
}

fn prepare(call: &Call, kind: Type) -> Result<Socket> {
    let target = target(call);
    let domain = Domain::from(i32::from(target.family()));
    let socket = Socket::new(domain, kind, None).map_err(at("socket"))?;
    let device = call.device.as_ref().map(String::as_bytes);
    socket.bind_device(device).map_err(at("socket"))?;
    if let Some(by) = &call.by {
        socket
            .set_broadcast(true)
            .and_then(|()| socket.set_multicast_if_v4(by))
            .map_err(at("socket"))?;
    }
    if let Some(source) = call.source {
        socket.set_reuse_address(true).map_err(at("bind"))?;
        socket.bind(&source.into()).map_err(at("bind"))?;
    }
    Ok(socket)
}

fn target(call: &Call) -> SockAddr {
    match call.address {
        SocketAddr::V4(v4) if call.mapped => {
            SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())).into()
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => call.address.into(),
    }
}

fn end(read: io::Result<usize>) -> Outcome {
    read.map_or_else(|error| failure(&Failed("receive", error)), |_| done("done"))
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
