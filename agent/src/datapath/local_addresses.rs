//! Which addresses are local, for each network namespace of the host, and which are those of broadcasts.
//!
//! Owns the listing and the notice of changes; never writes maps. Loopback addresses are left out: the
//! programs know them. So are addresses that only a route makes local. The own namespace's changes
//! are told by [`Watch`], the others' are seen by the next [`snapshot`].

mod room;

use std::{
    io::{self, Read},
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use imbl::OrdMap;
use nix::{
    ifaddrs::{InterfaceAddress, getifaddrs},
    sys::socket::{NetlinkAddr, SockaddrStorage, bind},
};
use ringfence_common::{
    abi::{
        LocalKey,
        settings::{BROADCAST, OWN_ADDRESS},
    },
    logic::address::{self, is_loopback},
};
use socket2::{Domain, Protocol, Socket, Type};

use self::room::Room;
use super::netns;

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
    /// [`OWN_ADDRESS`] or [`BROADCAST`] of each.
    pub addresses: OrdMap<LocalKey, u8>,
    /// Namespaces that could not be entered or read, whose addresses are missing.
    pub unread: usize,
    /// Addresses that are missing because there are too many.
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
    let mut room = Room::default();
    room.enter(None, addresses().map_err(LocalAddressesError::List)?);
    let others = netns::others(|_| false).map_err(LocalAddressesError::Namespaces)?;
    let each = |namespace: &netns::Namespace| Ok((namespace.foreign_owner()?, addresses()?));
    let read = netns::inside(&others, each).map_err(LocalAddressesError::Namespaces)?;
    let (mut users, mut unread) = (Vec::new(), 0);
    for result in read {
        match result {
            Ok((None, addresses)) => room.enter(None, addresses),
            Ok((owner, addresses)) => users.push((owner, addresses)),
            Err(error) => {
                tracing::debug!(%error, "network namespace not read");
                unread += 1;
            }
        }
    }
    for (owner, addresses) in users {
        room.enter(owner, addresses);
    }
    Ok(room.into_snapshot(unread))
}

/// Those of the calling thread's namespace.
fn addresses() -> io::Result<OrdMap<LocalKey, u8>> {
    let netns = netns::cookie()?;
    let interfaces: Vec<_> = getifaddrs()?.collect();
    let key = |address| LocalKey { netns, address };
    let broadcasts = interfaces.iter().flat_map(broadcasts);
    let own = interfaces
        .iter()
        .filter_map(|interface| bytes(interface.address.as_ref()?))
        .filter(|address| !is_loopback(address));
    // What is both is an own address.
    Ok(broadcasts
        .map(|address| (key(address), BROADCAST))
        .chain(own.map(|address| (key(address), OWN_ADDRESS)))
        .collect())
}

/// The broadcast addresses that come with an IPv4 address: that of its network, for which the kernel makes a
/// route by itself (`fib_add_ifaddr`), and the one that was set with it.
fn broadcasts(interface: &InterfaceAddress) -> Vec<[u8; 16]> {
    let v4 = |address: &Option<SockaddrStorage>| Some(address.as_ref()?.as_sockaddr_in()?.ip());
    let Some((address, mask)) = v4(&interface.address).zip(v4(&interface.netmask)) else {
        return Vec::new();
    };
    let hosts = !u32::from(mask);
    // A network of one or two addresses has none, loopback needs none.
    if hosts < 3 || address.is_loopback() {
        return Vec::new();
    }
    let all = Ipv4Addr::from(u32::from(address) | hosts);
    let set = v4(&interface.broadcast).filter(|set| !set.is_unspecified());
    std::iter::once(all)
        .chain(set)
        .map(|address| address::map_v4(address.octets()))
        .collect()
}

fn bytes(address: &SockaddrStorage) -> Option<[u8; 16]> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(address::map_v4(v4.ip().octets()));
    }
    Some(address.as_sockaddr_in6()?.ip().octets())
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
        Self::open().map_err(LocalAddressesError::Watch)
    }

    fn open() -> io::Result<Self> {
        let socket = Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::RAW,
            Some(Protocol::from(libc::NETLINK_ROUTE)),
        )?;
        socket.set_nonblocking(true)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        Ok(Self(socket))
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

#[cfg(test)]
mod tests {
    use std::{
        error::Error,
        net::Ipv6Addr,
        thread,
        time::{Duration, Instant},
    };

    use super::{super::netns::testing::Guest, *};

    type TestResult = Result<(), Box<dyn Error>>;

    #[test]
    fn addresses_of_another_namespace_come_and_go() -> TestResult {
        let guest = Guest::start()?;
        guest.run("ip addr add 10.77.1.2/24 dev lo; ip -6 addr add fd77::2/64 dev lo")?;
        let netns = guest.inside(netns::cookie)?;
        let theirs = |all: OrdMap<LocalKey, u8>| -> Vec<_> {
            let theirs = all.into_iter().filter(|(key, _)| key.netns == netns);
            theirs.map(|(key, kind)| (key.address, kind)).collect()
        };
        let v4 = address::map_v4([10, 77, 1, 2]);
        let v6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2).octets();
        let v6 = (v6, OWN_ADDRESS);
        let all = (address::map_v4([10, 77, 1, 255]), BROADCAST);
        assert_eq!(
            theirs(snapshot()?.addresses),
            vec![(v4, OWN_ADDRESS), all, v6]
        );

        guest.run("ip addr del 10.77.1.2/24 dev lo")?;
        assert_eq!(theirs(snapshot()?.addresses), vec![v6]);
        drop(guest);
        assert_eq!(theirs(snapshot()?.addresses), []);
        Ok(())
    }

    #[test]
    fn own_addresses_are_listed_without_loopback() -> TestResult {
        let own = netns::cookie()?;
        let found = snapshot()?.addresses;
        assert!(found.keys().all(|key| !is_loopback(&key.address)));
        let listed = found.into_iter().filter(|(key, _)| key.netns == own);
        assert_eq!(listed.collect::<OrdMap<_, _>>(), addresses()?);
        Ok(())
    }

    fn changes_within(watch: &Watch, limit: Duration) -> io::Result<bool> {
        let end = Instant::now() + limit;
        loop {
            if watch.drain()? {
                return Ok(true);
            }
            if Instant::now() > end {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn watch_notices_new_and_removed_addresses_of_its_namespace() -> TestResult {
        let guest = Guest::start()?;
        let watch = guest.inside(|| Watch::new().map_err(io::Error::other))?;
        // What making the namespace brought.
        while changes_within(&watch, Duration::from_millis(100))? {}
        for command in [
            "ip addr add 10.77.3.4/24 dev lo",
            "ip addr del 10.77.3.4/24 dev lo",
            "ip -6 addr add fd77::4/64 dev lo",
        ] {
            guest.run(command)?;
            assert!(changes_within(&watch, Duration::from_secs(5))?, "{command}");
        }
        Ok(())
    }
}
