//! Keeps the table of live flows true where events do not: of connections from before the agent none tells, and an end can
//! be lost while the ring is full. Without it an idle connection that policy denies would not be reset.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use ringfence_common::abi::{
    Count, Decision, Owner, Tuple,
    identity::{AGENT, HOST, KERNEL, PENDING, UNKNOWN, WORLD},
    socket::{PEER_VERIFIED, PHASE_CLOSED, PHASE_DENIED, PHASE_NEW},
};
use tokio::{task::block_in_place, time::interval};

use super::clock;
use crate::{
    datapath::{
        Counts, DatapathError, FlowState,
        survey::{Connection, Connections, Survey},
    },
    flow::{self, Listing, Live},
};

/// How often it is looked whether events were lost.
const TICK: Duration = Duration::from_secs(1);
/// Looks at the sockets once there is a reason: what changes during one is seen by the next.
const LOOKS: u32 = 2;
/// Ticks after which there is a reason anyhow.
const EVERY: u32 = 60;

/// Owner of the comparison.
pub struct Task {
    survey: Survey,
    flows: flow::Handle,
    counts: Arc<Counts>,
}

impl Task {
    /// By the maps pinned in `directory`.
    ///
    /// # Errors
    /// The map of sockets can't be opened, or there is no netlink.
    pub fn new(
        directory: &Path,
        flows: flow::Handle,
        counts: Arc<Counts>,
    ) -> Result<Self, DatapathError> {
        Ok(Self {
            survey: Survey::new(directory)?,
            flows,
            counts,
        })
    }

    /// Compares at the start, when events were lost, and once a minute.
    ///
    /// # Errors
    /// The flow log has ended.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut tick = interval(TICK);
        let (mut looks, mut idle, mut seen) = (LOOKS, 0, self.lost());
        loop {
            let _now = tick.tick().await;
            let lost = self.lost();
            idle += 1;
            if lost != seen || idle >= EVERY {
                (looks, idle, seen) = (LOOKS, 0, lost);
            }
            if looks > 0 {
                looks -= 1;
                self.look().await?;
            }
        }
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        let began_ns = clock::boot_now_ns();
        match block_in_place(|| self.survey.connections()) {
            Ok(found) => {
                let listing = listing(&found, began_ns);
                self.flows
                    .reconcile(listing)
                    .await
                    .context("the live flows")
            }
            Err(error) => {
                tracing::warn!(%error, "live flows are not compared with the sockets of this host");
                Ok(())
            }
        }
    }

    fn lost(&self) -> u64 {
        let counts = self.counts.counts();
        let in_kernel = usize::try_from(Count::EventLost as u32)
            .ok()
            .and_then(|index| counts.get(index).copied());
        in_kernel.unwrap_or(0) + self.flows.counters().queue_full()
    }
}

fn listing(found: &Connections, began_ns: u64) -> Listing {
    let sockets = found.sockets.iter();
    let ends: HashMap<(u64, Tuple), Option<Owner>> = sockets
        .map(|socket| {
            let owner = socket.known.map(|(owner, _)| owner);
            ((socket.namespace, socket.tuple), owner)
        })
        .collect();
    let sockets = found.sockets.iter();
    Listing {
        began_ns,
        namespaces: found.namespaces.clone(),
        cookies: sockets.clone().map(|socket| socket.cookie).collect(),
        flows: sockets
            .filter_map(|socket| {
                let (owner, flow) = socket.known?;
                let other = ends.get(&(socket.namespace, other_end(&socket.tuple)));
                live(socket, owner, flow, other)
            })
            .collect(),
    }
}

/// The flow of a socket, if it has one that policy can end; `other` is the owner of its other end, where that is here.
fn live(
    socket: &Connection,
    owner: Owner,
    flow: FlowState,
    other: Option<&Option<Owner>>,
) -> Option<Live> {
    let nobodys = matches!(owner.identity, UNKNOWN | KERNEL | PENDING | AGENT);
    if nobodys || matches!(flow.phase, PHASE_DENIED | PHASE_CLOSED) {
        return None;
    }
    let mut decision = flow.decision;
    if flow.phase == PHASE_NEW {
        // Nothing was decided yet: it has been idle since it was found.
        decision = match other {
            Some(owner) => Decision {
                peer: owner.map_or(HOST, |owner| owner.identity),
                flags: decision.flags | PEER_VERIFIED,
                ..decision
            },
            None => Decision {
                peer: WORLD,
                ..decision
            },
        };
    }
    Some(Live {
        cookie: socket.cookie,
        tuple: socket.tuple,
        owner: Owner {
            netns: socket.namespace,
            ..owner
        },
        decision,
        opened_ns: flow.opened_ns,
    })
}

/// The same addresses as the peer sees them.
pub(super) const fn other_end(tuple: &Tuple) -> Tuple {
    Tuple {
        local: tuple.remote,
        remote: tuple.local,
        local_port: tuple.remote_port,
        remote_port: tuple.local_port,
        ..*tuple
    }
}
