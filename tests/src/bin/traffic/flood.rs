//! Many segments made by hand, from addresses that may be anybody's, and what comes back for them.

use std::{
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use ringfence_tests::Outcome;
use socket2::{Domain, Protocol, Socket, Type};

use super::{Result, at, done, puppet::forge};

/// Silence after which nothing more is expected.
const QUIET: Duration = Duration::from_millis(500);
/// Where the first source port lies, and how many there are.
const PORTS: (u16, u32) = (20_000, 20_000);
/// RST (RFC 9293, section 3.1).
const RST: u8 = 4;

/// Segments to one port.
#[derive(clap::Args)]
pub struct Flood {
    /// First of the addresses that they claim to come from; those must lead here
    from: Ipv4Addr,
    target: SocketAddrV4,
    segments: u32,
    /// How many addresses
    #[arg(long, default_value_t = 1)]
    sources: u32,
    /// Flags of the TCP header; 2 is SYN
    #[arg(long, default_value_t = 2)]
    flags: u8,
}

/// Says how many were sent, and how many resets came back from the target (as bytes).
pub fn flood(flood: &Flood) -> Result<Outcome> {
    let begun = Instant::now();
    let raw = |protocol| Socket::new(Domain::IPV4, Type::RAW, Some(protocol));
    let sender = raw(Protocol::from(255)).map_err(at("socket"))?;
    let mut hearer = raw(Protocol::TCP).map_err(at("socket"))?;
    hearer.set_recv_buffer_size(4 << 20).map_err(at("socket"))?;
    hearer.set_nonblocking(true).map_err(at("socket"))?;
    let mut outcome = done("done");
    for index in 0..flood.segments {
        let address = Ipv4Addr::from(u32::from(flood.from) + index % flood.sources);
        let port = PORTS.0 + u16::try_from(index % PORTS.1).unwrap_or(0);
        let segment = forge::segment(SocketAddrV4::new(address, port), flood.target, flood.flags);
        let sent = sender.send_to(&segment, &flood.target.into());
        outcome.sent += u64::from(sent.map_err(at("send"))? > 0);
        outcome.received += resets(&mut hearer, flood.target);
    }
    let mut heard = Instant::now();
    while heard.elapsed() < QUIET {
        let resets = resets(&mut hearer, flood.target);
        if resets > 0 {
            outcome.received += resets;
            heard = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    outcome.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(outcome)
}

/// Takes what has come.
fn resets(hearer: &mut Socket, target: SocketAddrV4) -> u64 {
    let mut found = 0;
    let mut packet = [0; 256];
    loop {
        let length = match hearer.read(&mut packet) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return found,
        };
        found += u64::from(is_reset(packet.get(..length).unwrap_or_default(), target));
    }
}

fn is_reset(packet: &[u8], target: SocketAddrV4) -> bool {
    let source = packet.get(12..16) == Some(target.ip().octets().as_slice());
    let port = packet.get(20..22) == Some(target.port().to_be_bytes().as_slice());
    source && port && packet.get(33).is_some_and(|flags| flags & RST != 0)
}
