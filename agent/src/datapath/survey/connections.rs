//! TCP connections with what the kernel programs know of their flows.

use std::{collections::HashSet, io, os::fd::AsFd};

use ringfence_common::abi::{Owner, Tuple, tuple::TCP};

use super::{
    super::diag::{CONNECTED, FlowState, Listed},
    Held, Survey, V4, V6,
};

/// A connection as one of its sockets sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Cookie of its network namespace.
    pub namespace: u64,
    /// `SO_COOKIE`.
    pub cookie: u64,
    /// Addresses.
    pub tuple: Tuple,
    /// Whose it is, and what is known of its flow, where the kernel programs have seen it.
    pub known: Option<(Owner, FlowState)>,
}

impl Survey {
    /// Hands on the connections of this moment, one after the other. One that begins or ends meanwhile may be missing.
    /// The answer are the cookies of the namespaces that were read whole.
    ///
    /// # Errors
    /// The namespaces can't be listed.
    pub fn connections(&mut self, mut each: impl FnMut(&Connection)) -> io::Result<HashSet<u64>> {
        let _unopened = self.follow_namespaces()?;
        let mut namespaces = HashSet::new();
        for held in std::iter::once(&mut self.own).chain(self.held.values_mut()) {
            match dump(held, self.storage.as_fd(), &mut each) {
                Ok(()) => {
                    let _ = namespaces.insert(held.cookie);
                }
                Err(error) => tracing::debug!(%error, "connections of a namespace"),
            }
        }
        Ok(namespaces)
    }
}

fn dump(
    held: &mut Held,
    storage: std::os::fd::BorrowedFd<'_>,
    each: &mut impl FnMut(&Connection),
) -> io::Result<()> {
    let namespace = held.cookie;
    for family in [V4, V6] {
        let listed = held
            .channel
            .list(family, TCP, CONNECTED, storage, |socket| {
                each(&connection(namespace, &socket));
            });
        match listed {
            // A kernel without IPv6.
            Err(error) if family == V6 && error.raw_os_error() == Some(libc::EINVAL) => {}
            listed => listed?,
        }
    }
    Ok(())
}

fn connection(namespace: u64, socket: &Listed) -> Connection {
    let (remote, remote_port) = socket.remote;
    Connection {
        namespace,
        cookie: socket.cookie,
        tuple: Tuple {
            local: socket.address,
            remote,
            local_port: socket.port,
            remote_port,
            protocol: TCP,
            ..Tuple::default()
        },
        known: socket.owner.zip(socket.flow),
    }
}
