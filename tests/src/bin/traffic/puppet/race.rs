//! A thread asks for a port while another one takes away the port that the socket has.

use std::{hint::spin_loop, os::fd::AsRawFd as _, thread};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind as bind_to, connect,
        recv, sendto, socket,
    },
};
use ringfence_tests::Outcome;

use super::{Result, at, calls, done, raw};

/// Tries of one race.
const TRIES: u32 = 20_000;

/// One user connects a UDP socket, which so has a port of the kernel's choice; then another one binds it to `address`,
/// over and over until the kernel does, because a thread disconnects it. Somebody else sends to that address
/// then. As often as `times`: how often the port was given is `sent`, how often the datagram came is `received`.
pub fn bind(
    [before, after]: [i64; 2],
    called: &SockaddrStorage,
    address: &SockaddrStorage,
    times: u32,
) -> Result<Outcome> {
    let mut outcome = done("race");
    for number in 0..times {
        let fresh = || {
            let (family, kind) = (AddressFamily::Inet, SockType::Datagram);
            socket(family, kind, SockFlag::SOCK_NONBLOCK, None).map_err(at("socket"))
        };
        let (raced, sender) = (fresh()?, fresh()?);
        let fd = raced.as_raw_fd();
        raw::set_uid(before, -1).map_err(at("uid"))?;
        connect(fd, called).map_err(at("connect"))?;
        raw::set_uid(after, -1).map_err(at("uid"))?;
        let bound = thread::scope(|scope| {
            let _other = scope.spawn(move || {
                for _ in 0..number % 64 * 32 {
                    spin_loop();
                }
                calls::disconnect(fd)
            });
            (0..TRIES).any(|_| bind_to(fd, address).is_ok())
        });
        raw::set_uid(0, -1).map_err(at("uid"))?;
        if !bound {
            continue;
        }
        outcome.sent += 1;
        let _sent =
            sendto(sender.as_raw_fd(), b"q", address, MsgFlags::empty()).map_err(at("sendto"))?;
        match recv(fd, &mut [0; 1], MsgFlags::empty()) {
            Ok(_) => outcome.received += 1,
            Err(Errno::EAGAIN) => {}
            Err(error) => return Err(at("receive")(error)),
        }
    }
    Ok(outcome)
}
