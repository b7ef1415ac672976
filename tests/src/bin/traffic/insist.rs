//! Asks again and again for what is refused, to find the moment in which it is not.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::libc::EPERM;
use ringfence_tests::Outcome;

use super::{Result, at, done, print};

/// Between two tries.
const PAUSE: Duration = Duration::from_micros(50);

/// Sends datagrams over one connected socket. From the first that is refused on it also makes TCP calls
/// to the same address, and counts what passes (`received`) of all tries (`sent`) until there is a line
/// on standard input. Prints one line when something has passed, and one when the first was refused.
pub fn insist(address: SocketAddr) -> Result<Outcome> {
    let unspecified = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let socket = UdpSocket::bind(unspecified).map_err(at("bind"))?;
    socket.connect(address).map_err(at("connect"))?;
    let _sent = socket.send(b"q").map_err(at("send"))?;
    print(&done("send"));
    while !is_refused(&socket.send(b"q")) {
        thread::sleep(PAUSE);
    }
    print(&done("refused"));
    let enough = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&enough);
    let _reader = thread::spawn(move || {
        let _end = io::stdin().read_line(&mut String::new());
        told.store(true, Ordering::Relaxed);
    });
    let mut outcome = done("done");
    socket.set_nonblocking(true).map_err(at("socket"))?;
    let _before = answers(&socket);
    while !enough.load(Ordering::Relaxed) {
        // One that is held seems to be sent: only an answer shows that it has passed.
        let _sent = socket.send(b"q");
        let connected = TcpStream::connect(address).is_ok();
        outcome.sent += 2;
        outcome.received += u64::from(connected) + answers(&socket);
    }
    outcome.received += answers(&socket);
    Ok(outcome)
}

/// Answers that have come, and those that come soon.
fn answers(socket: &UdpSocket) -> u64 {
    thread::sleep(PAUSE);
    let mut buffer = [0; 16];
    let mut count = 0;
    while socket.recv(&mut buffer).is_ok() {
        count += 1;
    }
    count
}

fn is_refused<T>(result: &io::Result<T>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| error.raw_os_error() == Some(EPERM))
}
