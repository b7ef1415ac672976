//! Keeps the table of live flows true where events do not: of connections from before the agent none tells, and an end can
//! be lost while the ring is full. Without it an idle connection that policy denies would not be reset.

mod pace;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use ringfence_common::abi::{
    Count, Owner, Tuple,
    identity::{AGENT, HOST, KERNEL, PENDING, UNKNOWN, WORLD},
    socket::{PEER_VERIFIED, PHASE_CLOSED, PHASE_DENIED, PHASE_NEW},
};
use tokio::{task::block_in_place, time::interval};

use self::pace::Pace;
use super::clock;
use crate::{
    datapath::{
        Counts, DatapathError, FlowState,
        survey::{Connection, Survey},
    },
    flow::{self, Listing, Live},
};

/// How often it is looked whether events were lost.
const TICK: Duration = Duration::from_secs(1);
/// Flows that one look adds at most; the next adds others.
const MOST_NEW: usize = 16_384;

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
        let mut pace = Pace::new(self.lost());
        loop {
            let _now = tick.tick().await;
            if pace.tick(self.lost()) {
                let began = Instant::now();
                let all = self.look().await?;
                pace.looked(began.elapsed(), all);
            }
        }
    }

    /// Answers whether that was all.
    async fn look(&mut self) -> anyhow::Result<bool> {
        let known = self.flows.cookies().await.context("the live flows")?;
        let began_ns = clock::boot_now_ns();
        let survey = &mut self.survey;
        let compared =
            block_in_place(|| compare(&known, began_ns, MOST_NEW, |each| survey.connections(each)));
        match compared {
            Ok(listing) => {
                let all = listing.flows.len() < MOST_NEW;
                let told = self.flows.reconcile(listing).await;
                told.context("the live flows").map(|()| all)
            }
            Err(error) => {
                tracing::warn!(%error, "live flows are not compared with the sockets of this host");
                Ok(true)
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

/// Compares `known` cookies with the sockets that `dump` hands on, one after the other; of those that are not known `most`
/// are kept. Asks a second time where the other end of one of these has to be found.
fn compare(
    known: &HashSet<u64>,
    began_ns: u64,
    most: usize,
    mut dump: impl FnMut(&mut dyn FnMut(&Connection)) -> io::Result<HashSet<u64>>,
) -> io::Result<Listing> {
    let mut gone = known.clone();
    let mut flows = Vec::new();
    // By their other ends.
    let mut undecided: HashMap<(u64, Tuple), usize> = HashMap::new();
    let namespaces = dump(&mut |socket| {
        if known.contains(&socket.cookie) {
            let _ = gone.remove(&socket.cookie);
            return;
        }
        let found = socket
            .known
            .filter(|_| flows.len() < most)
            .and_then(|(owner, flow)| Some((live(socket, owner, flow)?, flow.phase)));
        if let Some((flow, phase)) = found {
            if phase == PHASE_NEW {
                let other = (socket.namespace, other_end(&socket.tuple));
                let _ = undecided.insert(other, flows.len());
            }
            flows.push(flow);
        }
    })?;
    if !undecided.is_empty() {
        let _same = dump(&mut |socket| {
            let other = undecided.get(&(socket.namespace, socket.tuple));
            if let Some(flow) = other.and_then(|index| flows.get_mut(*index)) {
                let owner = socket.known.map(|(owner, _)| owner.identity);
                flow.decision.peer = owner.unwrap_or(HOST);
                flow.decision.flags |= PEER_VERIFIED;
            }
        })?;
    }
    Ok(Listing {
        began_ns,
        namespaces,
        gone,
        flows,
    })
}

/// The flow of a socket, if it has one that policy can end.
fn live(socket: &Connection, owner: Owner, flow: FlowState) -> Option<Live> {
    let nobodys = matches!(owner.identity, UNKNOWN | KERNEL | PENDING | AGENT);
    if nobodys || matches!(flow.phase, PHASE_DENIED | PHASE_CLOSED) {
        return None;
    }
    let mut decision = flow.decision;
    if flow.phase == PHASE_NEW {
        // Nothing was decided yet: it has been idle since it was found. The other end may be here, too.
        decision.peer = WORLD;
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
