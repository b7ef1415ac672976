//! Aborts sockets by `SOCK_DESTROY`, in whichever network namespace they are.
//!
//! Owns one netlink socket for each namespace in use, and drops it when idle: a held one keeps the
//! namespace alive. Never hits another socket than the one with the given cookie. Blocks: for
//! microseconds where the namespace is known, else for as long as a walk over /proc takes.

use std::{
    collections::{HashMap, HashSet},
    io,
    time::{Duration, Instant},
};

use ringfence_common::abi::Tuple;

use super::{
    diag::{Channel, SocketId},
    netns::{self, NamespaceId},
};

/// Namespaces held at most.
const MAX_HELD: usize = 1024;
/// A namespace not used for so long is let go.
const IDLE: Duration = Duration::from_secs(10);
/// How long a namespace that was not found is not looked for again.
const ABSENT: Duration = Duration::from_secs(1);

/// What became of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was aborted: TCP sends a reset, and the process gets `ECONNABORTED`.
    Destroyed,
    /// There is no such socket any more.
    NotFound,
    /// No process and no mount stands for its namespace.
    NoNamespace,
}

/// Why sockets can't be aborted.
#[derive(Debug, thiserror::Error)]
pub enum DestroyError {
    /// No netlink socket.
    #[error("cannot open netlink sock_diag: {0}; raise the limit of open files, or load inet_diag")]
    Open(#[source] io::Error),
    /// Not compiled in, or not loadable.
    #[error(
        "this kernel cannot destroy sockets; use one with CONFIG_INET_DIAG_DESTROY=y, else revoked \
         connections are cut but not reset"
    )]
    Unsupported,
    /// A capability is missing.
    #[error("not permitted to destroy sockets; run the agent with CAP_NET_ADMIN")]
    Forbidden,
    /// The namespaces can't be listed.
    #[error("cannot list network namespaces: {0}; mount /proc without hidepid")]
    List(#[source] io::Error),
    /// A namespace can't be entered, and it may be the one that was asked for.
    #[error("cannot enter a network namespace: {0}; run the agent with CAP_SYS_ADMIN")]
    Enter(#[source] io::Error),
    /// Anything else.
    #[error("the kernel could not destroy a socket: {0}; try again, and report it if it stays")]
    Kernel(#[source] io::Error),
}

#[derive(Debug)]
struct Held {
    channel: Channel,
    id: NamespaceId,
    used: Instant,
}

/// Aborts sockets; keep one and use it from one thread that may block.
#[derive(Debug)]
pub struct Destroyer {
    own_cookie: u64,
    own: Channel,
    held: HashMap<u64, Held>,
    absent: HashSet<u64>,
    searched: Instant,
}

/// Whether the kernel can abort TCP sockets of the calling thread's namespace.
///
/// # Errors
/// The kernel's, for instance `EPERM`.
pub fn supported() -> io::Result<bool> {
    Channel::open()?.supported()
}

impl Destroyer {
    /// One whose own namespace is the calling thread's.
    ///
    /// # Errors
    /// If there is no netlink.
    pub fn new() -> Result<Self, DestroyError> {
        Ok(Self {
            own_cookie: netns::cookie().map_err(DestroyError::Open)?,
            own: Channel::open().map_err(DestroyError::Open)?,
            held: HashMap::new(),
            absent: HashSet::new(),
            searched: Instant::now(),
        })
    }

    /// Aborts the socket of protocol TCP or UDP that has this cookie (`SO_COOKIE`). `netns_cookie` is
    /// that of its namespace; 0 where that is not known: all are tried then. The tuple's ports must be
    /// the socket's; its addresses only make it faster. Whatever the cookie names is aborted: not for
    /// listeners, nor for unconnected UDP sockets, which serve other peers too.
    ///
    /// # Errors
    /// If the kernel can't or the agent may not.
    pub fn destroy(
        &mut self,
        netns_cookie: u64,
        tuple: &Tuple,
        cookie: u64,
    ) -> Result<Outcome, DestroyError> {
        self.release_unused();
        // All ones stand for any cookie in the kernel, zero for a socket that never got one.
        if cookie == 0 || cookie == u64::MAX {
            return Ok(Outcome::NotFound);
        }
        if netns_cookie == 0 {
            return self.anywhere(tuple, cookie);
        }
        if netns_cookie == self.own_cookie {
            return abort(&mut self.own, tuple, cookie);
        }
        if !self.held.contains_key(&netns_cookie) {
            if self.absent.contains(&netns_cookie) && self.searched.elapsed() < ABSENT {
                return Ok(Outcome::NoNamespace);
            }
            self.search(Some(netns_cookie))?;
        }
        let Some(held) = self.held.get_mut(&netns_cookie) else {
            let _ = self.absent.insert(netns_cookie);
            return Ok(Outcome::NoNamespace);
        };
        held.used = Instant::now();
        abort(&mut held.channel, tuple, cookie)
    }

    /// Lets go of namespaces that were not used for 10 seconds. Call it now and then: each
    /// [`Destroyer::destroy`] does it too.
    pub fn release_unused(&mut self) {
        self.held.retain(|_, held| held.used.elapsed() < IDLE);
    }

    fn anywhere(&mut self, tuple: &Tuple, cookie: u64) -> Result<Outcome, DestroyError> {
        if abort(&mut self.own, tuple, cookie)? == Outcome::Destroyed {
            return Ok(Outcome::Destroyed);
        }
        self.search(None)?;
        for held in self.held.values_mut() {
            if abort(&mut held.channel, tuple, cookie)? == Outcome::Destroyed {
                held.used = Instant::now();
                return Ok(Outcome::Destroyed);
            }
        }
        Ok(Outcome::NotFound)
    }

    /// Opens every namespace that is not held yet, so that one walk serves a whole batch of sockets.
    fn search(&mut self, wanted: Option<u64>) -> Result<(), DestroyError> {
        let known: HashSet<_> = self.held.values().map(|held| held.id).collect();
        let new = netns::others(|id| known.contains(&id)).map_err(DestroyError::List)?;
        let open = |namespace: &netns::Namespace| {
            let id = namespace.id;
            Ok((netns::cookie()?, id, Channel::open()?))
        };
        let opened = netns::inside(&new, open).map_err(DestroyError::Enter)?;
        self.absent.clear();
        self.searched = Instant::now();
        let mut failed = None;
        for result in opened {
            match result {
                Ok((cookie, id, channel)) => {
                    if self.held.len() < MAX_HELD || wanted == Some(cookie) {
                        let used = Instant::now();
                        let _ = self.held.insert(cookie, Held { channel, id, used });
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
        match (wanted, failed) {
            (Some(wanted), Some(error)) if !self.held.contains_key(&wanted) => {
                Err(DestroyError::Enter(error))
            }
            _ => Ok(()),
        }
    }
}

fn abort(channel: &mut Channel, tuple: &Tuple, cookie: u64) -> Result<Outcome, DestroyError> {
    let families = SocketId::families(tuple);
    for family in families {
        let id = SocketId::new(*family, tuple, cookie);
        if outcome(channel.destroy(&id))? == Outcome::Destroyed {
            return Ok(Outcome::Destroyed);
        }
    }
    // A socket that is bound to an interface is not found by addresses alone, nor is one whose
    // addresses were rewritten.
    for family in families {
        let id = SocketId::new(*family, tuple, cookie);
        let found = match channel.find(&id) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(error) => match outcome(Err(error))? {
                Outcome::Destroyed | Outcome::NotFound | Outcome::NoNamespace => continue,
            },
        };
        if outcome(channel.destroy(&found))? == Outcome::Destroyed {
            return Ok(Outcome::Destroyed);
        }
    }
    Ok(Outcome::NotFound)
}

fn outcome(result: io::Result<()>) -> Result<Outcome, DestroyError> {
    let Err(error) = result else {
        return Ok(Outcome::Destroyed);
    };
    match error.raw_os_error() {
        // EINVAL is a kernel without IPv6 that is asked for it.
        Some(libc::ENOENT | libc::ESTALE | libc::EINVAL) => Ok(Outcome::NotFound),
        Some(libc::EOPNOTSUPP) => Err(DestroyError::Unsupported),
        Some(libc::EPERM | libc::EACCES) => Err(DestroyError::Forbidden),
        _ => Err(DestroyError::Kernel(error)),
    }
}

#[cfg(test)]
mod tests;
