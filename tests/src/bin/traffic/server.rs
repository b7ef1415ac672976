//! Servers: they say when they are ready, and what each connection brought.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
};

use ringfence_tests::Outcome;

use super::{Failed, Protocol, Result, at, done, failure, print};

/// Serves until killed; returns only if that fails.
pub fn serve(protocol: Protocol, address: SocketAddr, reply: usize, echo: bool) -> Result<Outcome> {
    match protocol {
        Protocol::Tcp => tcp(address, reply, echo),
        Protocol::Udp => udp(address, reply, echo),
    }
}

fn tcp(address: SocketAddr, reply: usize, echo: bool) -> Result<Outcome> {
    let listener = TcpListener::bind(address).map_err(at("bind"))?;
    ready(listener.local_addr().ok());
    for stream in listener.incoming() {
        let stream = stream.map_err(at("accept"))?;
        let _thread = thread::spawn(move || print(&answer(stream, reply, echo)));
    }
    Ok(done("done"))
}

fn answer(mut stream: TcpStream, reply: usize, echo: bool) -> Outcome {
    let peer = stream.peer_addr().ok();
    let mut received = 0;
    let result = if echo {
        give_back(&mut stream, &mut received)
    } else {
        take(&mut stream, &mut received).and_then(|()| stream.write_all(&vec![b'r'; reply]))
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

fn udp(address: SocketAddr, reply: usize, echo: bool) -> Result<Outcome> {
    let socket = UdpSocket::bind(address).map_err(at("bind"))?;
    ready(socket.local_addr().ok());
    let mut buffer = vec![0; 65_536];
    let fixed = vec![b'r'; reply];
    loop {
        let (read, peer) = socket.recv_from(&mut buffer).map_err(at("receive"))?;
        let data = if echo {
            buffer.get(..read).unwrap_or_default()
        } else {
            &fixed
        };
        let sent = socket.send_to(data, peer);
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
