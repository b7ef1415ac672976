//! Notices of devices that come and go, one netlink socket for each network namespace.
//!
//! A socket keeps its namespace alive: it is let go when no guarded process is left there.

use std::{
    collections::HashMap,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::Socket;

use crate::datapath::{
    netlink,
    netns::{Namespace, NamespaceId},
};

/// `RTMGRP_LINK` (rtnetlink(7)).
const LINKS: u32 = 1;

/// All sockets behind one descriptor.
pub struct Notices {
    epoll: Epoll,
    sockets: HashMap<NamespaceId, Socket>,
}

impl Notices {
    /// Of no namespace yet.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            sockets: HashMap::new(),
        })
    }

    /// A descriptor that is readable when something has changed.
    ///
    /// # Errors
    /// The kernel's.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.epoll.0.as_fd().try_clone_to_owned()
    }

    /// Watches the calling thread's namespace, which is `place`.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn watch(&mut self, place: &Namespace) -> io::Result<()> {
        if self.sockets.contains_key(&place.id) {
            return Ok(());
        }
        let socket = netlink::subscribe(LINKS)?;
        let readable = EpollEvent::new(EpollFlags::EPOLLIN, 0);
        self.epoll.add(socket.as_fd(), readable)?;
        let _ = self.sockets.insert(place.id, socket);
        Ok(())
    }

    /// Lets go of the namespaces that are not in `places`.
    pub(super) fn retain(&mut self, places: &[Namespace]) {
        self.sockets
            .retain(|id, _| places.iter().any(|place| place.id == *id));
    }

    /// Empties all sockets: what they say is what the next look sees.
    pub fn drain(&self) {
        let mut buffer = [0; 8192];
        for mut socket in self.sockets.values() {
            // Until it would block. Messages that were lost (ENOBUFS) are no loss either.
            while socket.read(&mut buffer).map_or_else(
                |error| error.raw_os_error() == Some(libc::ENOBUFS),
                |_| true,
            ) {}
        }
    }
}
