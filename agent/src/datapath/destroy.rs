//! Aborts sockets by `SOCK_DESTROY`, in whichever network namespace they are.
//!
//! Owns one netlink socket for each namespace in use, and drops it when idle: a held one keeps the
//! namespace alive. Never hits another socket than the one with the given cookie. Blocks: for
//! microseconds where the namespace is known, else for as long as a walk over /proc takes.

use std::{io, time::Instant};

use ringfence_common::abi::Tuple;

use super::{
    diag::{Channel, SocketId},
    netns::held::{HeldOpen, SearchError},
};

/// Ports from which a listener among those that share its port is called before it is given up.
const CALLERS: u16 = 512;

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

impl From<SearchError> for DestroyError {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::List(source) => Self::List(source),
            SearchError::Enter(source) => Self::Enter(source),
        }
    }
}

/// Aborts sockets; keep one and use it from one thread that may block.
#[derive(Debug)]
pub struct Destroyer {
    channels: HeldOpen<Channel>,
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
        let channels = HeldOpen::new(Channel::open).map_err(DestroyError::Open)?;
        Ok(Self { channels })
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
        // All ones stand for any cookie in the kernel, zero for a socket that never got one.
        if cookie == 0 || cookie == u64::MAX {
            return Ok(Outcome::NotFound);
        }
        if netns_cookie == 0 {
            return self.anywhere(tuple, cookie);
        }
        match self.channels.get(netns_cookie)? {
            Some(channel) => abort(channel, tuple, cookie),
            None => Ok(Outcome::NoNamespace),
        }
    }

    /// Aborts the listener that has this cookie, whoever shares its port. Its port stays taken until its last descriptor is
    /// closed (`SOCK_BINDPORT_LOCK`). `NotFound` may also be: so many share the port that it was not met.
    ///
    /// # Errors
    /// As [`Self::destroy`].
    pub fn end_listener(
        &mut self,
        netns_cookie: u64,
        tuple: &Tuple,
        cookie: u64,
    ) -> Result<Outcome, DestroyError> {
        let Some(channel) = self.channels.get(netns_cookie)? else {
            return Ok(Outcome::NoNamespace);
        };
        for family in SocketId::families(tuple) {
            let id = SocketId::new(*family, tuple, cookie);
            let found = match channel.find(&id) {
                Ok(found) => found,
                // A kernel without IPv6.
                Err(error) => {
                    let _nothing = outcome(Err(error))?;
                    None
                }
            };
            for port in found.iter().flat_map(|_| 0..CALLERS) {
                let met = found.map_or(id, |found| found.called_from(port));
                if outcome(channel.destroy(&met))? == Outcome::Destroyed {
                    return Ok(Outcome::Destroyed);
                }
            }
        }
        Ok(Outcome::NotFound)
    }

    /// Lets go of namespaces that were not used for 10 seconds. Call it now and then: each
    /// [`Destroyer::destroy`] does it too.
    pub fn release_unused(&mut self) {
        self.channels.release_unused();
    }

    fn anywhere(&mut self, tuple: &Tuple, cookie: u64) -> Result<Outcome, DestroyError> {
        if abort(&mut self.channels.own, tuple, cookie)? == Outcome::Destroyed {
            return Ok(Outcome::Destroyed);
        }
        self.channels.release_unused();
        self.channels.search(None)?;
        for held in self.channels.held.values_mut() {
            if abort(&mut held.opened, tuple, cookie)? == Outcome::Destroyed {
                held.used = Instant::now();
                return Ok(Outcome::Destroyed);
            }
        }
        Ok(Outcome::NotFound)
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
