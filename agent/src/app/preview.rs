//! What a policy that is not in force would do to what is live.
//!
//! Judges every open flow by the new tables: with the identities that the processes of both its ends would have, as
//! [`revoke`] does it for a policy that came into force. Only looks; the caller runs it where it may take its time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ringfence_common::abi::{
    Direction, Identity, Owner, Tuple, Verdict,
    identity::{HOST, PENDING, UNKNOWN, is_workload},
};
use ringfence_policy::{
    compile::Compiled,
    explain::{Query, answer},
    model::{Identities, RESERVED},
};

use super::{
    reconcile::other_end,
    revoke::{self, Spared},
};
use crate::{
    api::decision,
    change::{Cut, Preview, Refused},
    endpoints::Endpoints,
    flow::Live,
    identity::Foreseen,
};

/// A policy that passed every check and is not in force.
pub struct Proposal {
    /// Its tables.
    pub compiled: Arc<Compiled>,
    /// Its workloads.
    pub identities: Arc<Identities>,
    /// Who would be who.
    pub foreseen: Foreseen,
    /// What is valid in it but hardly meant.
    pub warnings: Vec<String>,
    /// Workloads, policies and rules.
    pub sizes: [usize; 3],
}

/// One end of a flow as the other end knows it.
type End = (u64, Tuple);

/// What would become of these flows and listeners at `now_ns` (`CLOCK_BOOTTIME`).
#[must_use]
pub fn preview(
    proposal: Proposal,
    live: &[Live],
    listeners: &Arc<Endpoints>,
    spared: &Spared,
    now_ns: u64,
) -> Preview {
    let names: BTreeMap<Identity, &str> = proposal
        .identities
        .iter()
        .map(|(name, identity)| (*identity, name.as_str()))
        .collect();
    let owners: Vec<Identity> = live
        .iter()
        .map(|flow| proposal.owner(&flow.owner))
        .collect();
    let ends: HashMap<End, Identity> = live
        .iter()
        .zip(&owners)
        .map(|(flow, owner)| ((flow.owner.netns, flow.tuple), *owner))
        .collect();
    let mut pending = 0_usize;
    let mut cut = Vec::new();
    for (flow, owner) in live.iter().zip(&owners) {
        let end = (flow.owner.netns, other_end(&flow.tuple));
        let peer = ends
            .get(&end)
            .copied()
            .unwrap_or_else(|| proposal.peer(flow.decision.peer));
        if [*owner, peer].contains(&PENDING) {
            pending += 1;
            continue;
        }
        let query = revoke::query(flow, *owner, peer);
        let outcome = answer(&proposal.compiled, &query, now_ns).enforced;
        if outcome.verdict == Verdict::Deny && !spared.covers(flow) {
            cut.push(Cut {
                flow: *flow,
                workload: name(&names, *owner),
                peer: name(&names, peer),
                decision: decision(&proposal.compiled, &outcome),
            });
        }
    }
    cut.sort_by(|a, b| {
        let key = |cut: &Cut| (cut.flow.tuple, cut.flow.cookie);
        (&a.workload, key(a)).cmp(&(&b.workload, key(b)))
    });
    Preview {
        generation: 0,
        live: live.len(),
        cut,
        refused: proposal.refused(listeners, spared, now_ns),
        notes: notes(&proposal, listeners, spared, pending),
        warnings: proposal.warnings,
        sizes: proposal.sizes,
    }
}

impl Proposal {
    /// Who would own a socket.
    fn owner(&self, owner: &Owner) -> Identity {
        let judged =
            is_workload(owner.identity) || [HOST, UNKNOWN, PENDING].contains(&owner.identity);
        let moves = self.foreseen.moves || owner.identity == PENDING;
        if judged && moves && owner.cgroup != 0 {
            return self.foreseen.owner(owner);
        }
        owner.identity
    }

    /// Who a peer would be of whose own socket nothing is known here.
    fn peer(&self, peer: Identity) -> Identity {
        if is_workload(peer) && !self.identities.values().any(|identity| *identity == peer) {
            return HOST;
        }
        peer
    }

    /// Listeners of workloads that there are with it too, which it would not let listen there.
    fn refused(&self, listeners: &Endpoints, spared: &Spared, now_ns: u64) -> Vec<Refused> {
        if spared.all {
            return Vec::new();
        }
        let judge = |endpoint: &crate::endpoints::Endpoint| {
            let local = *self.identities.get(&*endpoint.workload)?;
            let query = Query {
                local,
                direction: Direction::Listen,
                peer: 0,
                verified: false,
                peer_address: None,
                protocol: endpoint.protocol,
                port: endpoint.port,
            };
            let outcome = answer(&self.compiled, &query, now_ns).enforced;
            (outcome.verdict == Verdict::Deny).then(|| Refused {
                endpoint: endpoint.clone(),
                decision: decision(&self.compiled, &outcome),
            })
        };
        listeners.list.iter().filter_map(judge).collect()
    }
}

/// What the answer leaves open.
fn notes(
    proposal: &Proposal,
    listeners: &Endpoints,
    spared: &Spared,
    pending: usize,
) -> Vec<String> {
    let mut notes = Vec::new();
    if spared.all {
        notes.push(
            "the agent is in draft mode: nothing is cut, whatever the policy says".to_owned(),
        );
    }
    if pending > 0 {
        notes.push(format!(
            "of {pending} flows an executable is still being judged: they are not counted"
        ));
    }
    if proposal.foreseen.moves {
        notes.push("workloads change: listeners are judged as those whose they are now".to_owned());
    }
    notes.extend(listeners.error.clone());
    if listeners.omitted > 0 {
        notes.push(format!(
            "{} listeners were not looked at",
            listeners.omitted
        ));
    }
    notes
}

fn name(names: &BTreeMap<Identity, &str>, identity: Identity) -> String {
    let reserved = RESERVED.iter().find(|(_, number)| *number == identity);
    reserved
        .map(|(name, _)| *name)
        .or_else(|| names.get(&identity).copied())
        .map_or_else(|| identity.to_string(), str::to_owned)
}

#[cfg(test)]
#[path = "preview_tests.rs"]
mod tests;
