//! Calls the same destinations over and over, and says whenever what becomes of a call changes; and the
//! server that all these calls go to.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use ringfence_tests::Outcome;
use socket2::{Domain, Socket, Type};

use super::{Result, at, done, failure, print, socket as sockets};

/// A call that is not answered by then is held or lost.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same for a datagram.
const SILENCE: Duration = Duration::from_millis(500);

/// A destination as it is written: `tcp/127.0.0.1:80`, `udp/127.0.0.1:53`, `icmp/127.0.0.1:0`.
#[derive(Clone, Debug)]
pub struct Target {
    text: String,
    kind: Kind,
    address: SocketAddr,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp,
    Udp,
    Echo,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (protocol, address) = text.split_once('/').ok_or("PROTOCOL/ADDRESS")?;
        Ok(Self {
            text: text.to_owned(),
            kind: match protocol {
                "tcp" => Kind::Tcp,
                "udp" => Kind::Udp,
                "icmp" => Kind::Echo,
                _ => return Err("tcp, udp or icmp".to_owned()),
            },
            address: address.parse().map_err(|_| "an address")?,
        })
    }
}

/// Calls each target in turn, `rounds` times or until a line on standard input, with a pause after each round. One line for the first call of
/// each target and for each change, with the number of the call as `sent`; at the end their sum.
pub fn sample(targets: &[Target], rounds: Option<u64>, pause: Duration) -> Result<Outcome> {
    let enough = Arc::new(AtomicBool::new(false));
    if rounds.is_none() {
        let told = Arc::clone(&enough);
        let _reader = thread::spawn(move || {
            let _end = io::stdin().read_line(&mut String::new());
            told.store(true, Ordering::Relaxed);
        });
    }
    let unspecified = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let socket = UdpSocket::bind(unspecified).map_err(at("bind"))?;
    let mut last = BTreeMap::new();
    let mut number = 0;
    let mut round = 0;
    let mut last_round = false;
    while !last_round {
        round += 1;
        // One that begins after the word to end.
        last_round = enough.load(Ordering::Relaxed) || rounds.is_some_and(|rounds| round >= rounds);
        for target in targets {
            number += 1;
            let error = call(target, &socket)
                .err()
                .and_then(|failed| failure(&failed).error);
            if last.get(&target.text) != Some(&error) {
                print(&Outcome {
                    step: target.text.clone(),
                    error: error.clone(),
                    sent: number,
                    ..done("")
                });
                let _before = last.insert(target.text.clone(), error);
            }
        }
        thread::sleep(pause);
    }
    Ok(Outcome {
        sent: number,
        ..done("done")
    })
}

fn call(target: &Target, socket: &UdpSocket) -> Result<()> {
    match target.kind {
        Kind::Tcp => tcp(target.address).map_err(at("call")),
        Kind::Udp => udp(target.address, socket).map_err(at("call")),
        Kind::Echo => sockets::ping(target.address.ip(), false).map(drop),
    }
}

fn tcp(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Nothing stays in TIME_WAIT, of which there would soon be one for each port.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect_timeout(&address.into(), PATIENCE)
}

fn udp(address: SocketAddr, socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 8];
    socket.set_nonblocking(true)?;
    while socket.recv(&mut buffer).is_ok() {}
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(SILENCE))?;
    let _sent = socket.send_to(b"q", address)?;
    socket.recv(&mut buffer).map(drop)
}

/// Takes every connection and gives back every datagram on many ports, until standard input ends.
pub fn sink(address: IpAddr, first: u16, ports: u16) -> Result<Outcome> {
    for port in first..first + ports {
        let address = SocketAddr::new(address, port);
        let listener = TcpListener::bind(address).map_err(at("listen"))?;
        let socket = UdpSocket::bind(address).map_err(at("bind"))?;
        let _tcp = thread::spawn(move || listener.incoming().for_each(drop));
        let _udp = thread::spawn(move || give_back(&socket));
    }
    print(&done("listen"));
    let _end = io::stdin().read_to_end(&mut Vec::new());
    Ok(done("done"))
}

fn give_back(socket: &UdpSocket) {
    let mut buffer = [0; 64];
    loop {
        if let Ok((read, peer)) = socket.recv_from(&mut buffer) {
            let _refused = socket.send_to(buffer.get(..read).unwrap_or_default(), peer);
        }
    }
}
