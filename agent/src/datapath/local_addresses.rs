//! Which addresses are local, for each network namespace of the host, and which are those of broadcasts.
//!
//! Owns the listing and the notice of changes; never writes maps. Loopback addresses are left out: the
//! programs know them. So are addresses that only a route makes local. The own namespace's changes
//! are told by [`Watch`], the others' are seen by the next [`snapshot`].
//!
//! A look takes bounded time and memory whatever users put into namespaces of their own: what goes beyond their
//! part is not even read.

mod message;
mod room;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use imbl::OrdMap;
use ringfence_common::abi::LocalKey;
use socket2::Socket;

use self::room::Room;
use super::{
    netlink::{self, ALL, Netlink},
    netns,
};
use crate::identity::Subordinates;

const RTM_GETADDR: u16 = 22;
/// `RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR` (rtnetlink(7)).
const GROUPS: u32 = 0x10 | 0x100;

/// Why local addresses are not known.
#[derive(Debug, thiserror::Error)]
pub enum LocalAddressesError {
    /// Those of the own namespace can't be read.
    #[error("cannot list the addresses of this host: {0}; raise the limit of open files")]
    List(#[source] io::Error),
    /// The other namespaces can't be found, or none can be entered.
    #[error(
        "cannot look into other network namespaces: {0}; run the agent with CAP_SYS_ADMIN in the \
         host's namespaces"
    )]
    Namespaces(#[source] io::Error),
    /// Changes can't be subscribed to.
    #[error("cannot watch the addresses of this host: {0}; raise the limit of open files")]
    Watch(#[source] io::Error),
}

/// The addresses of all namespaces at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// [`OWN_ADDRESS`](ringfence_common::abi::settings::OWN_ADDRESS) or
    /// [`BROADCAST`](ringfence_common::abi::settings::BROADCAST) of each.
    pub addresses: OrdMap<LocalKey, u8>,
    /// Namespaces that could not be entered or read, whose addresses are missing.
    pub unread: usize,
    /// Namespaces of which addresses are missing because there are too many.
    pub left_out: usize,
    /// Whose they are, where it is not this host that has too many.
    pub owner: Option<u32>,
}

/// Lists the local addresses of the calling thread's namespace and of every other one. Blocks for as
/// long as a walk over /proc takes.
///
/// # Errors
/// If the own namespace can't be read or the others can't be listed.
pub fn snapshot() -> Result<Snapshot, LocalAddressesError> {
    look(Room::default(), &Subordinates::of_host())
}

fn look(mut room: Room, subordinates: &Subordinates) -> Result<Snapshot, LocalAddressesError> {
    list(&mut room, None).map_err(LocalAddressesError::List)?;
    let mut owners = HashMap::new();
    let (mut hosts, mut users, mut unread) = (Vec::new(), Vec::new(), 0);
    // Each is held open until it was looked into: of a user's no more than he has room for.
    netns::each_other(|namespace| match namespace.foreign_owner() {
        Ok(None) => hosts.push(namespace),
        Ok(Some(owner)) => {
            let owner = subordinates.holder(owner);
            if room.admits(owner) {
                let _ = owners.insert(namespace.id, owner);
                users.push(namespace);
            }
        }
        Err(error) => {
            tracing::debug!(%error, "network namespace of an unknown owner");
            unread += 1;
        }
    })
    .map_err(LocalAddressesError::Namespaces)?;
    // What this host has counts first.
    for namespaces in [hosts, users] {
        let each = |namespace: &netns::Namespace| {
            let owner = owners.get(&namespace.id).copied();
            list(&mut room, owner)
        };
        for result in netns::inside(&namespaces, each).map_err(LocalAddressesError::Namespaces)? {
            if let Err(error) = result {
                tracing::debug!(%error, "network namespace not read");
                unread += 1;
            }
        }
    }
    Ok(room.into_snapshot(unread))
}

/// Takes in those of the calling thread's namespace, which `owner` chooses, until there is no room.
fn list(room: &mut Room, owner: Option<u32>) -> io::Result<()> {
    let netns = netns::cookie()?;
    let mut part = room.part(owner);
    // Of any family, `struct rtgenmsg`.
    let every = [0; 4];
    Netlink::open(libc::NETLINK_ROUTE)?.converse(RTM_GETADDR, ALL, &every, |message| {
        part.take(netns, &message::addresses(message))
    })
}

/// Notices changes of the addresses of the namespace that it was made in. The descriptor does not
/// block; it is readable when something changed.
#[derive(Debug)]
pub struct Watch(Socket);

impl Watch {
    /// Subscribes; what changes from now on is noticed, so take a snapshot afterwards.
    ///
    /// # Errors
    /// If there is no netlink.
    pub fn new() -> Result<Self, LocalAddressesError> {
        netlink::subscribe(GROUPS)
            .map(Self)
            .map_err(LocalAddressesError::Watch)
    }

    /// Empties the descriptor; whether there was something, which means that addresses may have
    /// changed.
    ///
    /// # Errors
    /// The kernel's.
    pub fn drain(&self) -> io::Result<bool> {
        let mut buffer = [0; 8192];
        let mut changed = false;
        loop {
            match (&self.0).read(&mut buffer) {
                Ok(_) => changed = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changed),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Too many for the socket's buffer: some are lost, so something changed.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
