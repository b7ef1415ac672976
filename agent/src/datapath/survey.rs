//! Every socket of this host by whom it belongs to, in all network namespaces.
//!
//! Owns one netlink socket for each namespace, and drops it when no process and no mount stands for the
//! namespace any more: a held one keeps the namespace alive. Blocks; use it from a thread that may.

mod connections;

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use aya::maps::{MapData, SkStorage};
use ringfence_common::{
    abi::{
        Owner, SocketState, identity, names,
        tuple::{TCP, UDP},
    },
    logic::address,
};
use socket2::SockRef;

pub use self::connections::Connection;
use super::{
    diag::{CLOSE, Channel, EVERY_STATE, LISTEN, Listed},
    error::DatapathError,
    fds, maps,
    netns::{self, NamespaceId},
};

/// Namespaces held at most; those beyond are not surveyed, and said to be missing.
const MAX_HELD: usize = 4096;
const V4: u8 = 2;
const V6: u8 = 10;

/// A socket and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSocket {
    /// Cookie of its network namespace.
    pub namespace: u64,
    /// IANA number.
    pub protocol: u8,
    /// IPv4 mapped; zero = every address of the family, or not bound.
    pub address: [u8; 16],
    /// In host order.
    pub port: u16,
    /// Takes IPv4 besides its own family.
    pub dual_stack: bool,
    /// Device that it is bound to, 0 = none.
    pub device: u32,
    /// TCP: listens. UDP: is bound and not connected.
    pub receives: bool,
    /// Whose it is, where the kernel programs have seen that and the kernel tells it: not of a UDP socket.
    pub owner: Option<Owner>,
    /// TCP: who asked for its port was not judged yet.
    pub unjudged: bool,
    /// cgroup that it was made in.
    pub cgroup: u64,
    /// User whom it belongs to.
    pub uid: u32,
    /// `SO_COOKIE`.
    pub cookie: u64,
    /// Inode number, 0 = no descriptor is open.
    pub inode: u64,
}

/// What a survey found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In no order.
    pub sockets: Vec<FoundSocket>,
    /// Namespaces that could not be looked into, and why the last of them could not.
    pub unread: Option<(usize, String)>,
}

/// Which sockets are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// TCP listeners and UDP sockets that are bound and not connected.
    Receiving,
    /// Connections too.
    All,
}

struct Held {
    cookie: u64,
    channel: Channel,
}

/// Looks into every namespace; keep one.
pub struct Survey {
    storage: OwnedFd,
    values: SkStorage<MapData, SocketState>,
    own: Held,
    held: HashMap<NamespaceId, Held>,
}

impl Survey {
    /// One whose own namespace is the calling thread's; `directory` is that of the pins.
    ///
    /// # Errors
    /// [`DatapathError::Map`], or there is no netlink.
    pub fn new(directory: &Path) -> Result<Self, DatapathError> {
        let own = || {
            Ok(Held {
                cookie: netns::cookie()?,
                channel: Channel::open()?,
            })
        };
        Ok(Self {
            storage: maps::descriptor(directory, names::SOCKETS)?,
            values: maps::open(directory, names::SOCKETS)?,
            own: own().map_err(DatapathError::map(names::SOCKETS))?,
            held: HashMap::new(),
        })
    }

    /// Reads them anew.
    ///
    /// # Errors
    /// The namespaces can't be listed, or the own one can't be read.
    pub fn look(&mut self, scope: Scope) -> io::Result<Found> {
        let mut found = Found::default();
        let opened = self.follow_namespaces()?;
        dump(&mut self.own, &self.storage, scope, &mut found.sockets)?;
        let mut failed = opened;
        for held in self.held.values_mut() {
            if let Err(error) = dump(held, &self.storage, scope, &mut found.sockets) {
                failed.push(error);
            }
        }
        let last = failed.last().map(ToString::to_string);
        found.unread = last.map(|error| (failed.len(), error));
        Ok(found)
    }

    /// Whose a socket is, by a process that has it open; `None` if it is another socket, or nobody's yet.
    #[must_use]
    pub fn owner(&self, tgid: u32, fd: i32, cookie: u64) -> Option<Owner> {
        let socket = fds::socket_of(tgid, fd).ok()?;
        let same = SockRef::from(&socket).cookie().ok()? == cookie;
        let state = self.values.get(&socket, 0).ok().filter(|_| same)?;
        (state.owner.identity != identity::UNKNOWN).then_some(state.owner)
    }

    /// Lets others who ask for it (`SO_REUSEADDR`) have the port of a socket that does not listen; whether it is the one
    /// with this cookie.
    #[must_use]
    pub fn give_way(tgid: u32, fd: i32, cookie: u64) -> bool {
        let Ok(socket) = fds::socket_of(tgid, fd) else {
            return false;
        };
        let socket = SockRef::from(&socket);
        socket.cookie().is_ok_and(|own| own == cookie) && socket.set_reuse_address(true).is_ok()
    }

    /// Opens the namespaces that are new and lets go of those that only this agent holds. The answer says
    /// why some could not be opened.
    fn follow_namespaces(&mut self) -> io::Result<Vec<io::Error>> {
        let seen = RefCell::new(HashSet::new());
        let new = netns::others(|id| {
            let _ = seen.borrow_mut().insert(id);
            self.held.contains_key(&id)
        })?;
        let seen = seen.into_inner();
        self.held.retain(|id, _| seen.contains(id));
        let mut failed = Vec::new();
        let open = |namespace: &netns::Namespace| {
            let held = Held {
                cookie: netns::cookie()?,
                channel: Channel::open()?,
            };
            Ok((namespace.id, held))
        };
        for opened in netns::inside(&new, open)? {
            match opened {
                Ok((id, held)) if self.held.len() < MAX_HELD => {
                    let _ = self.held.insert(id, held);
                }
                Ok(_) => failed.push(io::Error::other("too many network namespaces")),
                Err(error) => failed.push(error),
            }
        }
        Ok(failed)
    }
}

fn dump(
    held: &mut Held,
    storage: &OwnedFd,
    scope: Scope,
    into: &mut Vec<FoundSocket>,
) -> io::Result<()> {
    let namespace = held.cookie;
    for (protocol, receiving) in [(TCP, LISTEN), (UDP, CLOSE)] {
        let states = match scope {
            Scope::Receiving => receiving,
            Scope::All => EVERY_STATE,
        };
        for family in [V4, V6] {
            let each = |socket: Listed| {
                into.push(FoundSocket {
                    namespace,
                    protocol,
                    address: socket.address,
                    port: socket.port,
                    dual_stack: family == V6 && !socket.v6only && socket.address == [0; 16],
                    device: socket.device,
                    receives: 1_u32.checked_shl(socket.state.into()) == Some(receiving),
                    owner: socket.owner,
                    unjudged: socket.unjudged,
                    cgroup: socket.cgroup,
                    uid: socket.uid,
                    cookie: socket.cookie,
                    inode: socket.inode,
                });
            };
            let listed = held
                .channel
                .list(family, protocol, states, storage.as_fd(), each);
            match listed {
                // A kernel without IPv6.
                Err(error) if family == V6 && error.raw_os_error() == Some(libc::EINVAL) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    let name = if protocol == TCP {
                        "tcp_diag"
                    } else {
                        "udp_diag"
                    };
                    return Err(io::Error::other(format!(
                        "this kernel cannot list sockets: load the module {name}"
                    )));
                }
                other => other?,
            }
        }
    }
    Ok(())
}

impl FoundSocket {
    /// The address as it is written; IPv4 for an IPv4 socket and for a mapped address.
    #[must_use]
    pub fn ip(&self) -> std::net::IpAddr {
        let v6 = std::net::Ipv6Addr::from(self.address);
        if address::is_mapped_v4(&self.address) {
            v6.to_canonical()
        } else {
            v6.into()
        }
    }
}
