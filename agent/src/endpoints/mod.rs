//! Endpoints: where the workloads of this host listen.
//!
//! One task ([`Task`]) asks the kernel for the sockets of every network namespace, about once a second, and
//! publishes what has changed; whoever wants it fresh asks through [`Handle`]. The owner of a TCP socket is
//! what the kernel programs remember of it. Where they have seen nothing yet (a socket that listens without
//! having been bound) or have not been told yet (an executable that was pending), and for UDP sockets, the
//! cgroup of the socket and the identity tables say whose it is; `unowned` helps where they can't. Ports that somebody
//! took before it was known who that is are given up here, too (`unjudged`). Never part of the policy task.

mod task;
#[cfg(test)]
mod tests;
mod unjudged;
mod unowned;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ringfence_common::abi::{
    ExecutableKey, Identity, Owner,
    identity::{AGENT, PENDING, UNKNOWN, is_workload},
    tuple::UDP,
};
use ringfence_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};

pub use task::{Root, Task};
pub use unjudged::Terms;

use crate::{
    datapath::survey::FoundSocket,
    identity::{Groups, Tables},
};

/// Endpoints kept at most; those beyond, the last in order, are counted.
pub const MOST: usize = 65_536;
/// Questions that wait at most.
const QUESTIONS: usize = 16;

/// Where a workload listens. Sockets that agree in all of it are one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Owner.
    pub identity: Identity,
    /// Name of the workload.
    pub workload: Arc<str>,
    /// Cookie of the network namespace.
    pub namespace: u64,
    /// IANA number.
    pub protocol: u8,
    /// In host order, not 0.
    pub port: u16,
    /// Never mapped; unspecified = every address.
    pub address: IpAddr,
    /// Takes IPv4 besides.
    pub dual_stack: bool,
    /// Device that it is bound to, 0 = none.
    pub device: u32,
}

/// All endpoints of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// At most [`MOST`].
    pub list: BTreeSet<Endpoint>,
    /// Those that found no room.
    pub omitted: usize,
    /// Why the list may not be whole; `None` when it is.
    pub error: Option<String>,
}

/// A look at every socket.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// The endpoints.
    pub endpoints: Arc<Endpoints>,
    /// Who owns each internet socket that has a descriptor, by inode number; `UNKNOWN` where that can't be told.
    pub owners: Arc<HashMap<u64, Identity>>,
}

/// Access to the task.
#[derive(Clone, Debug)]
pub struct Handle {
    latest: watch::Receiver<Arc<Endpoints>>,
    questions: mpsc::Sender<oneshot::Sender<Look>>,
}

/// The task's ends.
#[derive(Debug)]
pub struct Ends {
    published: watch::Sender<Arc<Endpoints>>,
    questions: mpsc::Receiver<oneshot::Sender<Look>>,
}

/// A handle and the ends of it.
#[must_use]
pub fn channel() -> (Handle, Ends) {
    let (published, latest) = watch::channel(Arc::default());
    let (sender, questions) = mpsc::channel(QUESTIONS);
    let handle = Handle {
        latest,
        questions: sender,
    };
    (
        handle,
        Ends {
            published,
            questions,
        },
    )
}

impl Handle {
    /// The endpoints, as they are found.
    #[must_use]
    pub fn latest(&self) -> watch::Receiver<Arc<Endpoints>> {
        self.latest.clone()
    }

    /// Looks anew; `None` while too many ask, or the agent ends.
    pub async fn look(&self) -> Option<Look> {
        let (reply, answer) = oneshot::channel();
        self.questions.try_send(reply).ok()?;
        answer.await.ok()
    }
}

/// A handle to a task that finds this, whenever it is asked.
#[cfg(test)]
pub(crate) fn fixed(look: Look) -> Handle {
    let (handle, mut ends) = channel();
    drop(tokio::spawn(async move {
        drop(ends.published.send_replace(Arc::clone(&look.endpoints)));
        while let Some(reply) = ends.questions.recv().await {
            let _ = reply.send(look.clone());
        }
    }));
    handle
}

/// What turns sockets into endpoints.
struct Who<'a> {
    tables: &'a Tables,
    /// cgroup id of the guarded root.
    root: u64,
    names: &'a BTreeMap<Identity, Arc<str>>,
}

impl Who<'_> {
    /// The endpoints among sockets. What belongs to no workload, or to nobody that is known yet, is none.
    fn endpoints(&self, sockets: &[FoundSocket]) -> Endpoints {
        let mut list: BTreeSet<Endpoint> = sockets
            .iter()
            .filter(|socket| socket.receives && socket.port != 0)
            .filter_map(|socket| self.endpoint(socket))
            .collect();
        let omitted = list.len().saturating_sub(MOST);
        for _ in 0..omitted {
            let _ = list.pop_last();
        }
        Endpoints {
            list,
            omitted,
            error: None,
        }
    }

    fn endpoint(&self, socket: &FoundSocket) -> Option<Endpoint> {
        let identity = self.identity(socket);
        let workload = self
            .names
            .get(&identity)
            .filter(|_| is_workload(identity))?;
        Some(Endpoint {
            identity,
            workload: Arc::clone(workload),
            namespace: socket.namespace,
            protocol: socket.protocol,
            port: socket.port,
            address: socket.ip(),
            dual_stack: socket.dual_stack,
            device: socket.device,
        })
    }

    /// Who an owner is now.
    fn present(tables: &Tables, root: u64, owner: &Owner) -> Identity {
        let known = owner.executable != ExecutableKey::default();
        let key = known.then_some(&owner.executable);
        let groups = Groups::Noted(owner.class);
        tables.resolve(owner.cgroup, root, key, owner.uid, &groups)
    }

    fn identity(&self, socket: &FoundSocket) -> Identity {
        match socket.owner {
            // What was read of a UDP socket may be older than the tables.
            Some(owner)
                if owner.identity == AGENT
                    || (owner.identity != PENDING && socket.protocol != UDP) =>
            {
                owner.identity
            }
            Some(owner) => {
                let found = Self::present(self.tables, self.root, &owner);
                let entry = self.tables.cgroups.get(&owner.cgroup);
                let by_process = entry.is_none_or(|entry| entry.class != 0);
                // As the kernel programs: who was found stays while the executable is forgotten, as when its file was replaced.
                match found {
                    PENDING if by_process => owner.identity,
                    found => found,
                }
            }
            // A cgroup that is not known may be outside of the guarded root.
            None if self.tables.cgroups.contains_key(&socket.cgroup) => self.tables.resolve(
                socket.cgroup,
                self.root,
                None,
                socket.uid,
                &Groups::Noted(0),
            ),
            None => UNKNOWN,
        }
    }
}

impl From<&Endpoint> for v1::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            address: match endpoint.address {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            },
            protocol: endpoint.protocol.into(),
            port: endpoint.port.into(),
            dual_stack: endpoint.dual_stack,
            namespace: endpoint.namespace,
            device: endpoint.device,
            identity: endpoint.identity,
            workload: endpoint.workload.to_string(),
        }
    }
}
