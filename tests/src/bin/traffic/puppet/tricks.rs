//! What honest programs seldom do with a socket: the steps of attempts to get round a policy.
//!
//! Levels, options, flags and control messages are written as the numbers of the kernel's headers, so that
//! a script can ask for whatever there is.

use std::{
    io::{self, IoSlice},
    net::{SocketAddr, SocketAddrV4},
    os::fd::{IntoRawFd as _, RawFd},
    process::Command as Process,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, connect, getpeername, sendmmsg},
};
use ringfence_tests::Outcome;
use socket2::{Domain, MsgHdr, Protocol, SockAddr, SockFilter, SockRef, Socket, Type};

use super::{Failed, PATIENCE, Result, at, calls, done, forge, named, number, place, raw};

/// How long a socket waits for what may never come.
const SHORT: Duration = Duration::from_secs(1);

pub fn perform(words: &[&str]) -> Result<Outcome> {
    match *words {
        ["open", family, kind, protocol, fd] => open(
            [number(family)?, number(kind)?, number(protocol)?],
            number(fd)?,
        ),
        ["option", fd, level, name, value] => {
            let set = calls::set_option(number(fd)?, number(level)?, number(name)?, &bytes(value)?);
            named("option", set)
        }
        ["message", fd, target, flags] => message(number(fd)?, target, number(flags)?, &[]),
        ["message", fd, target, flags, level, kind, value] => {
            let control = control(number(level)?, number(kind)?, &bytes(value)?);
            message(number(fd)?, target, number(flags)?, &control)
        }
        ["messages", fd, first, second] => messages(number(fd)?, [first, second]),
        ["unspec", fd] => named("unspec", calls::disconnect(number(fd)?)),
        ["begin", fd, target] => begin(number(fd)?, &super::storage(target)?),
        ["finish", fd] => finish(number(fd)?),
        ["deaf", fd] => {
            // Returns 0: takes no byte of any packet.
            let nothing = [SockFilter::new(6, 0, 0, 0)];
            let socket = raw::borrowed(number(fd)?);
            SockRef::from(&socket)
                .attach_filter(&nothing)
                .map_err(at("deaf"))?;
            Ok(done("deaf"))
        }
        ["unanswered", fd] => {
            // A listener with this filter takes SYNs, and no packet with the flag ACK (byte 13 of the TCP header).
            let no_ack = [
                SockFilter::new(0x30, 0, 0, 13),
                SockFilter::new(0x45, 0, 1, 0x10),
                SockFilter::new(6, 0, 0, 0),
                SockFilter::new(6, 0, 0, u32::MAX),
            ];
            let socket = raw::borrowed(number(fd)?);
            SockRef::from(&socket)
                .attach_filter(&no_ack)
                .map_err(at("unanswered"))?;
            Ok(done("unanswered"))
        }
        ["hear", fd] => {
            let socket = raw::borrowed(number(fd)?);
            SockRef::from(&socket).detach_filter().map_err(at("hear"))?;
            Ok(done("hear"))
        }
        ["prefer", fd, index] => named("prefer", calls::prefer(number(fd)?, number(index)?)),
        ["reply", fd] => reply(number(fd)?),
        ["sendfile", fd] => named("sendfile", calls::send_file(number(fd)?)),
        ["splice", fd] => named("splice", calls::splice(number(fd)?)),
        ["unshare"] => named("unshare", unshare(CloneFlags::CLONE_NEWNET)),
        ["run", program, ref arguments @ ..] => run(program, arguments),
        ["forge", fd, from, to] => send(
            number(fd)?,
            to,
            &[forge::datagram(at_v4(from)?, at_v4(to)?)],
        ),
        ["fragments", fd, from, to] => {
            send(number(fd)?, to, &forge::fragments(at_v4(from)?, at_v4(to)?))
        }
        ["overlap", fd, from, to, port] => {
            let parts = forge::overlapping(at_v4(from)?, at_v4(to)?, number(port)?);
            send(number(fd)?, to, &parts)
        }
        ["syn", fd, from, to] => send(number(fd)?, to, &[forge::syn(at_v4(from)?, at_v4(to)?)]),
        _ => Err(Failed("script", io::ErrorKind::InvalidInput.into())),
    }
}

fn open([family, kind, protocol]: [i32; 3], fd: RawFd) -> Result<Outcome> {
    let (domain, protocol) = (Domain::from(family), Some(Protocol::from(protocol)));
    let socket = Socket::new(domain, Type::from(kind), protocol).map_err(at("open"))?;
    let patience = Duration::from_secs(PATIENCE.unsigned_abs());
    socket
        .set_write_timeout(Some(patience))
        .map_err(at("open"))?;
    socket.set_read_timeout(Some(SHORT)).map_err(at("open"))?;
    place(socket.into_raw_fd(), fd, "open")
}

/// One byte, with a destination unless that is `-`.
fn message(fd: RawFd, target: &str, flags: i32, control: &[u8]) -> Result<Outcome> {
    let socket = raw::borrowed(fd);
    let data = [IoSlice::new(b"q")];
    let address = (target != "-").then(|| number::<SocketAddr>(target).map(SockAddr::from));
    let address = address.transpose()?;
    let mut header = MsgHdr::new().with_buffers(&data).with_control(control);
    if let Some(address) = &address {
        header = header.with_addr(address);
    }
    let sent = SockRef::from(&socket).sendmsg(&header, flags);
    let _sent = sent.map_err(at("message"))?;
    Ok(done("message"))
}

/// Two datagrams in one call; how many were taken is `sent`.
fn messages(fd: RawFd, targets: [&str; 2]) -> Result<Outcome> {
    let [first, second] = targets.map(super::storage);
    let addresses: [Option<SockaddrStorage>; 2] = [Some(first?), Some(second?)];
    let data = [[IoSlice::new(b"q")], [IoSlice::new(b"q")]];
    let mut headers = MultiHeaders::preallocate(2, None);
    let taken = sendmmsg(fd, &mut headers, &data, addresses, [], MsgFlags::empty());
    let taken = taken.map_err(at("messages"))?.count();
    Ok(Outcome {
        sent: u64::try_from(taken).unwrap_or(0),
        ..done("messages")
    })
}

/// Connects without waiting for the answer.
fn begin(fd: RawFd, target: &SockaddrStorage) -> Result<Outcome> {
    let socket = raw::borrowed(fd);
    SockRef::from(&socket)
        .set_nonblocking(true)
        .map_err(at("begin"))?;
    match connect(fd, target) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(done("begin")),
        Err(error) => Err(Failed("begin", error.into())),
    }
}

/// Waits for what was begun.
fn finish(fd: RawFd) -> Result<Outcome> {
    let socket = raw::borrowed(fd);
    let socket = SockRef::from(&socket);
    let deadline = Instant::now() + 3 * SHORT;
    while getpeername::<SockaddrStorage>(fd).is_err() {
        if let Some(error) = socket.take_error().map_err(at("finish"))? {
            return Err(Failed("finish", error));
        }
        if Instant::now() >= deadline {
            return Err(Failed("finish", io::ErrorKind::TimedOut.into()));
        }
        thread::sleep(Duration::from_millis(1));
    }
    socket.set_nonblocking(false).map_err(at("finish"))?;
    Ok(done("finish"))
}

/// Gives the next datagram back to its sender.
fn reply(fd: RawFd) -> Result<Outcome> {
    let socket = raw::borrowed(fd);
    let socket = SockRef::from(&socket);
    let mut buffer = [std::mem::MaybeUninit::uninit(); 64];
    let (_, sender) = socket.recv_from(&mut buffer).map_err(at("receive"))?;
    let _sent = socket.send_to(b"q", &sender).map_err(at("reply"))?;
    Ok(done("reply"))
}

fn run(program: &str, arguments: &[&str]) -> Result<Outcome> {
    let status = Process::new(program)
        .args(arguments)
        .status()
        .map_err(at("run"))?;
    if !status.success() {
        return Err(Failed("run", io::ErrorKind::Other.into()));
    }
    Ok(done("run"))
}

/// Sends packets that begin with their IP header.
fn send(fd: RawFd, to: &str, packets: &[Vec<u8>]) -> Result<Outcome> {
    let socket = raw::borrowed(fd);
    let target = SockAddr::from(SocketAddrV4::new(*at_v4(to)?.ip(), 0));
    for packet in packets {
        let sent = SockRef::from(&socket).send_to(packet, &target);
        let _sent = sent.map_err(at("forge"))?;
    }
    Ok(done("forge"))
}

fn at_v4(word: &str) -> Result<SocketAddrV4> {
    number(word)
}

/// A control message as `cmsg(3)` lays it out on 64-bit machines.
fn control(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    const HEADER: usize = 16;
    let mut message = (HEADER + data.len()).to_ne_bytes().to_vec();
    message.extend(level.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(data);
    message.resize(message.len().next_multiple_of(8), 0);
    message
}

/// Bytes written as pairs of hexadecimal digits.
fn bytes(word: &str) -> Result<Vec<u8>> {
    let digits = word.as_bytes().chunks(2);
    let pair = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(text, 16).ok()
    };
    let parsed: Option<Vec<u8>> = digits.map(pair).collect();
    parsed.ok_or_else(|| Failed("script", io::ErrorKind::InvalidInput.into()))
}
