//! Frames past the IP stack: packet sockets (packet(7)).

use std::{
    io::{self, Read as _},
    mem,
    os::fd::AsRawFd as _,
};

use nix::{libc, net::if_::if_nametoindex};
use ringfence_tests::Outcome;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::{Failed, Result, at, done, narrow, print};

/// The local experimental type of IEEE 802.
const EXPERIMENTAL: u16 = 0x88b5;
/// `PACKET_QDISC_BYPASS` (`include/uapi/linux/if_packet.h`).
const QDISC_BYPASS: libc::c_int = 20;

/// A frame to send.
#[derive(clap::Args)]
pub struct Frame {
    device: String,
    /// Bytes after the header
    size: usize,
    /// Past the queueing discipline of the device
    #[arg(long)]
    bypass: bool,
    /// The same, asked for by the 32-bit interface of the kernel
    #[arg(long = "bypass-32")]
    bypass_32: bool,
    /// Last byte of the receiver's address (02:00:00:00:00:NN), else to everybody
    #[arg(long)]
    to: Option<u8>,
}

/// Sends one frame.
pub fn send(frame: &Frame) -> Result<Outcome> {
    let socket = make(0)?;
    if frame.bypass {
        bypass(&socket)?;
    }
    if frame.bypass_32 {
        let on = 1_i32.to_ne_bytes();
        narrow::set_option(socket.as_raw_fd(), libc::SOL_PACKET, QDISC_BYPASS, &on)
            .map_err(at("option"))?;
    }
    let address = address(&frame.device, frame.to)?;
    let sent = socket.send_to(&vec![b'f'; frame.size], &address);
    Ok(Outcome {
        sent: u64::try_from(sent.map_err(at("send"))?).unwrap_or(0),
        ..done("done")
    })
}

/// Says the size of each frame that comes.
pub fn sniff(device: &str) -> Result<Outcome> {
    let mut socket = make(EXPERIMENTAL)?;
    socket.bind(&address(device, None)?).map_err(at("bind"))?;
    print(&done("listen"));
    let mut buffer = [0; 2048];
    loop {
        let read = socket.read(&mut buffer).map_err(at("receive"))?;
        print(&Outcome {
            received: u64::try_from(read).unwrap_or(0),
            ..done("done")
        });
    }
}

fn make(ether_type: u16) -> Result<Socket> {
    let protocol = Protocol::from(i32::from(ether_type.to_be()));
    Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).map_err(at("socket"))
}

fn bypass(socket: &Socket) -> Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the value lives across the call and has the size that is said.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            QDISC_BYPASS,
            (&raw const on).cast(),
            4,
        )
    };
    if result != 0 {
        return Err(Failed("option", io::Error::last_os_error()));
    }
    Ok(())
}

fn address(device: &str, to: Option<u8>) -> Result<SockAddr> {
    let index = if_nametoindex(device).map_err(at("device"))?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the type is one of socket addresses.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = 17;
    link.sll_protocol = EXPERIMENTAL.to_be();
    link.sll_ifindex = index.cast_signed();
    link.sll_halen = 6;
    link.sll_addr = to.map_or([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], |last| {
        [2, 0, 0, 0, 0, last, 0, 0]
    });
    let length = u32::try_from(mem::size_of::<libc::sockaddr_ll>()).unwrap_or(0);
    // SAFETY: the first `length` bytes were written.
    Ok(unsafe { SockAddr::new(storage, length) })
}
