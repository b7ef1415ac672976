//! Ends connections that policy no longer allows. The programs drop their packets already; this makes
//! both ends notice at once.

use std::collections::{HashMap, HashSet};

use ringfence_common::abi::{
    Direction, Event, FailsafeEntry, Identity, Owner, Verdict,
    identity::is_workload,
    socket::PEER_VERIFIED,
    tuple::{ICMP, ICMPV6, TCP},
};
use ringfence_common::logic::{failsafe, record};
use ringfence_policy::{
    compile::Compiled,
    explain::{Query, answer},
};
use tokio::sync::mpsc;

use super::{clock, reconcile::other_end};
use crate::{datapath::destroy::Destroyer, flow::Live};

/// Connections that wait to be ended at most; beyond that the next packet of each still fails.
pub const QUEUE: usize = 65_536;

/// A connection to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Network namespace.
    pub netns: u64,
    /// Socket.
    pub cookie: u64,
    /// Addresses.
    pub tuple: ringfence_common::abi::Tuple,
}

/// The connection that a record asks to end.
#[must_use]
pub fn target(event: &Event) -> Option<Target> {
    let ends = record::ends(event.kind, event.hook, event.decision.flags);
    (ends && event.tuple.protocol == TCP).then_some(Target {
        netns: event.owner.netns,
        cookie: event.cookie,
        tuple: event.tuple,
    })
}

/// What the agent's configuration lets pass, whatever a policy says.
#[derive(Clone, Debug)]
pub struct Spared {
    /// Draft mode: everything.
    pub all: bool,
    /// Inbound flows of this list.
    pub failsafe: Vec<FailsafeEntry>,
}

impl Spared {
    /// Whether it lets a flow pass.
    #[must_use]
    pub fn covers(&self, flow: &Live) -> bool {
        let (remote, port) = (&flow.tuple.remote, flow.tuple.local_port);
        let listed = |entry| failsafe::covers(entry, remote, flow.tuple.protocol, port);
        self.all || (is_inbound(flow) && self.failsafe.iter().any(listed))
    }

    /// Whether it lets a flow pass at its other end.
    fn covers_other_end(&self, flow: &Live) -> bool {
        let (caller, port) = (&flow.tuple.local, flow.tuple.remote_port);
        let listed = |entry| failsafe::covers(entry, caller, flow.tuple.protocol, port);
        !is_inbound(flow) && self.failsafe.iter().any(listed)
    }
}

/// Live flows whose ends are who they are now, as `identify` says of an owner (`None`: as before).
#[must_use]
pub fn as_of_now(mut live: Vec<Live>, identify: impl Fn(&Owner) -> Option<Identity>) -> Vec<Live> {
    for flow in live.iter_mut().filter(|flow| flow.tuple.protocol == TCP) {
        flow.owner.identity = identify(&flow.owner).unwrap_or(flow.owner.identity);
    }
    let place = |flow: &Live| (flow.owner.netns, flow.tuple);
    let ends: HashMap<_, _> = live
        .iter()
        .map(|flow| (place(flow), flow.owner.identity))
        .collect();
    for flow in &mut live {
        let other = (flow.owner.netns, other_end(&flow.tuple));
        if flow.decision.flags & PEER_VERIFIED != 0
            && let Some(identity) = ends.get(&other)
        {
            flow.decision.peer = *identity;
        }
    }
    live
}

/// The live connections that the policy now in force denies.
#[must_use]
pub fn denied(live: &[Live], compiled: &Compiled, spared: &Spared) -> Vec<Target> {
    let now = clock::boot_now_ns();
    live.iter()
        .filter(|flow| flow.tuple.protocol == TCP)
        .filter(|flow| !spared.covers(flow))
        .filter(|flow| {
            let own = query(flow, flow.owner.identity, flow.decision.peer);
            let other = of_other_end(flow).filter(|_| !spared.covers_other_end(flow));
            let denies = |query| answer(compiled, &query, now).enforced.verdict == Verdict::Deny;
            denies(own) || other.is_some_and(denies)
        })
        .map(|flow| Target {
            netns: flow.owner.netns,
            cookie: flow.cookie,
            tuple: flow.tuple,
        })
        .collect()
}

/// What the other end is asked about a live flow, where it is a workload whose socket is on this host: its policy cuts
/// both ends. (A packet of one would tell the other, but an idle connection has none.)
fn of_other_end(flow: &Live) -> Option<Query> {
    let is_here = flow.decision.flags & PEER_VERIFIED != 0 && is_workload(flow.decision.peer);
    let own = query(flow, flow.owner.identity, flow.decision.peer);
    is_here.then(|| Query {
        local: own.peer,
        peer: own.local,
        peer_address: Some(flow.tuple.local),
        direction: if is_inbound(flow) {
            Direction::Egress
        } else {
            Direction::Ingress
        },
        ..own
    })
}

/// What is asked about a live flow whose ends are these identities.
#[must_use]
pub fn query(flow: &Live, local: Identity, peer: Identity) -> Query {
    let inbound = is_inbound(flow);
    let icmp = matches!(flow.tuple.protocol, ICMP | ICMPV6);
    Query {
        local,
        direction: if inbound {
            Direction::Ingress
        } else {
            Direction::Egress
        },
        peer,
        verified: flow.decision.flags & PEER_VERIFIED != 0,
        peer_address: Some(flow.tuple.remote),
        protocol: flow.tuple.protocol,
        // Of ICMP the type, which stands where the peer's port is.
        port: if inbound && !icmp {
            flow.tuple.local_port
        } else {
            flow.tuple.remote_port
        },
    }
}

fn is_inbound(flow: &Live) -> bool {
    flow.decision.direction == Direction::Ingress as u8
}

/// Ends what comes in.
///
/// # Errors
/// The netlink socket can't be opened.
pub async fn run(mut queue: mpsc::Receiver<Target>) -> anyhow::Result<()> {
    let mut destroyer = Destroyer::new()?;
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, 1024).await > 0 {
        let targets: HashSet<Target> = batch.drain(..).collect();
        tokio::task::block_in_place(|| {
            for target in targets {
                match destroyer.destroy(target.netns, &target.tuple, target.cookie) {
                    Ok(outcome) => {
                        tracing::debug!(?outcome, cookie = target.cookie, "connection ended");
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a revoked connection can't be reset; its packets are dropped");
                    }
                }
            }
            destroyer.release_unused();
        });
    }
    Ok(())
}
