//! Servers: they say when they are ready, and what each connection brought.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use ringfence_tests::Outcome;
use socket2::{Domain, Socket, Type};

use super::{Failed, Protocol, Result, at, done, failure, print};

/// What a server gives back.
#[derive(Clone, Copy)]
pub enum Answer {
    /// That many bytes to each connection or datagram.
    Bytes(usize),
    /// What comes, as it comes.
    Echo,
    /// Nothing.
    Nothing,
}

/// Who else may have the port, and where it is served.
#[derive(clap::Args)]
pub struct Sharing {
    /// Share the port with others that do the same
    #[arg(long)]
    share: bool,
    /// Only for packets of this device
    #[arg(long)]
    device: Option<String>,
    /// UDP over IPv4: also what is sent to this group, through the device that has the second address
    #[arg(long, num_args = 2)]
    join: Vec<Ipv4Addr>,
}

/// Serves until killed; returns only if that fails.
pub fn serve(
    protocol: Protocol,
    address: SocketAddr,
    answer: Answer,
    delay: Duration,
    sharing: &Sharing,
) -> Result<Outcome> {
    let kind = match protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(address), kind, None).map_err(at("socket"))?;
    if sharing.share {
        socket.set_reuse_port(true).map_err(at("socket"))?;
    }
    let device = sharing.device.as_ref().map(String::as_bytes);
    socket.bind_device(device).map_err(at("socket"))?;
    if kind == Type::STREAM {
        socket.set_reuse_address(true).map_err(at("socket"))?;
    }
    socket.bind(&address.into()).map_err(at("bind"))?;
    if let [group, device] = sharing.join.as_slice() {
        let joined = socket.join_multicast_v4(group, device);
        joined.map_err(at("join"))?;
    }
    match protocol {
        Protocol::Tcp => {
            socket.listen(128).map_err(at("listen"))?;
            tcp(&socket.into(), answer)
        }
        Protocol::Udp => udp(&socket.into(), answer, delay),
    }
}

/// Holds sockets on many ports until standard input ends.
pub fn hold(protocol: Protocol, address: SocketAddr, ports: u16) -> Result<Outcome> {
    let kind = match protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    };
    let mut held = Vec::new();
    for port in address.port()..address.port() + ports {
        let socket = Socket::new(Domain::for_address(address), kind, None).map_err(at("socket"))?;
        let address = SocketAddr::new(address.ip(), port);
        socket.bind(&address.into()).map_err(at("bind"))?;
        if kind == Type::STREAM {
            socket.listen(16).map_err(at("listen"))?;
        }
        held.push(socket);
    }
    ready(Some(address));
    let mut nothing = Vec::new();
    let _end = io::stdin().read_to_end(&mut nothing);
    drop(held);
    Ok(done("done"))
}

fn tcp(listener: &TcpListener, answer: Answer) -> Result<Outcome> {
    ready(listener.local_addr().ok());
    for stream in listener.incoming() {
        let stream = stream.map_err(at("accept"))?;
        let _thread = thread::spawn(move || print(&reply(stream, answer)));
    }
    Ok(done("done"))
}

fn reply(mut stream: TcpStream, answer: Answer) -> Outcome {
    let peer = stream.peer_addr().ok();
    let mut received = 0;
    let result = match answer {
        Answer::Echo => give_back(&mut stream, &mut received),
        Answer::Nothing => take(&mut stream, &mut received),
        Answer::Bytes(bytes) => {
            take(&mut stream, &mut received).and_then(|()| stream.write_all(&vec![b'r'; bytes]))
        }
    };
    Outcome {
        peer,
        received,
        ..end("receive", result)
    }
}

fn take(stream: &mut TcpStream, received: &mut u64) -> io::Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        *received += u64::try_from(read).unwrap_or(0);
    }
}

fn give_back(stream: &mut TcpStream, received: &mut u64) -> io::Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        *received += u64::try_from(read).unwrap_or(0);
        stream.write_all(buffer.get(..read).unwrap_or_default())?;
    }
}

fn udp(socket: &UdpSocket, answer: Answer, delay: Duration) -> Result<Outcome> {
    ready(socket.local_addr().ok());
    let mut buffer = vec![0; 65_536];
    loop {
        let (read, peer) = socket.recv_from(&mut buffer).map_err(at("receive"))?;
        thread::sleep(delay);
        let sent = match answer {
            Answer::Bytes(bytes) => socket.send_to(&vec![b'r'; bytes], peer),
            Answer::Echo => socket.send_to(buffer.get(..read).unwrap_or_default(), peer),
            Answer::Nothing => Ok(0),
        };
        print(&Outcome {
            peer: Some(peer),
            received: u64::try_from(read).unwrap_or(0),
            ..end("send", sent)
        });
    }
}

fn end<T>(step: &'static str, result: io::Result<T>) -> Outcome {
    result.map_or_else(|error| failure(&Failed(step, error)), |_| done("done"))
}

fn ready(local: Option<SocketAddr>) {
    print(&Outcome {
        local,
        ..done("listen")
    });
}
