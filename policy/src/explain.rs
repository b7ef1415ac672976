//! Answers from the compiled tables, through the code that the kernel runs.

use ringfence_common::{
    abi::{
        CidrKey, Direction, Header, Identity, Reason, RuleEntry, Verdict,
        identity::{AGENT, HOST, PENDING, is_workload},
        rule::{ALLOW_SELF, PEER_ANY},
    },
    logic::{
        address::policy_address,
        verdict::{Outcome, Question, collect, is_agents_call, merge, outcome},
    },
};

use crate::compile::{Compiled, Table};

/// One flow from the view of its local end, or a port to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Owner of the local socket.
    pub local: Identity,
    /// Egress, ingress or listen.
    pub direction: Direction,
    /// Identity of the peer; for listen it does not matter.
    pub peer: Identity,
    /// The peer's identity is proved.
    pub verified: bool,
    /// Address of the peer, IPv4 mapped; `None`: no rule about addresses is looked at.
    pub peer_address: Option<[u8; 16]>,
    /// IANA protocol number.
    pub protocol: u8,
    /// Egress: the peer's port; ingress and listen: the local port; ICMP: the type.
    pub port: u16,
}

/// Both verdicts on a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the enforced policies say.
    pub enforced: Outcome,
    /// What enforced and draft policies together say.
    pub draft: Outcome,
}

/// Judges `query` at `now_boot_ns` (`CLOCK_BOOTTIME`) as the kernel does. The failsafe list is
/// the agent's configuration and not looked at.
#[must_use]
pub fn answer(compiled: &Compiled, query: &Query, now_boot_ns: u64) -> Answer {
    if let Some(outcome) = without_policy(query) {
        return Answer {
            enforced: outcome,
            draft: outcome,
        };
    }
    let table = compiled.tables.get(&query.local);
    let header = table.map_or(
        Header {
            tiers: [0; 3],
            enforced: ALLOW_SELF,
            draft: ALLOW_SELF,
        },
        |table| table.header,
    );
    let found = table.map_or_else(RuleEntry::default, |table| look_up(table, query));
    let to_itself = query.direction != Direction::Listen && query.peer == query.local;
    let judge = |layer, flags| {
        outcome(
            layer,
            flags,
            query.direction,
            to_itself,
            compiled.deny_unselected,
            now_boot_ns,
        )
    };
    Answer {
        enforced: judge(&found.enforced, header.enforced),
        draft: judge(&found.draft, header.draft),
    }
}

/// What holds where no policy applies: for a local identity that is not a workload's, and for the agent's calls.
fn without_policy(query: &Query) -> Option<Outcome> {
    let (verdict, reason) = match query.local {
        HOST => (Verdict::Allow, Reason::AllowedHost),
        AGENT => (Verdict::Allow, Reason::AllowedOwnChannel),
        PENDING => (Verdict::Deny, Reason::DeniedPending),
        other if !is_workload(other) => (Verdict::Deny, Reason::DeniedNoIdentity),
        _ if is_agents_call(query.direction, query.peer, query.verified) => {
            (Verdict::Allow, Reason::AllowedOwnChannel)
        }
        _ => return None,
    };
    Some(Outcome {
        verdict,
        reason,
        rule: 0,
        until: u64::MAX,
    })
}

fn look_up(table: &Table, query: &Query) -> RuleEntry {
    let address_class = query
        .peer_address
        .and_then(|address| class_of(table, policy_address(address)))
        .unwrap_or(PEER_ANY);
    let question = Question {
        direction: query.direction,
        peer: query.peer,
        verified: query.verified,
        address_class,
        protocol: query.protocol,
        port: query.port,
    };
    collect(&table.header, &question, |key, found| {
        if let Some(entry) = table.entries.get(key) {
            merge(&mut found.enforced, &entry.enforced);
            merge(&mut found.draft, &entry.draft);
        }
    })
}

/// The class of the longest prefix that covers `address`.
fn class_of(table: &Table, address: [u8; 16]) -> Option<Identity> {
    if table.cidrs.is_empty() {
        return None;
    }
    let number = u128::from_be_bytes(address);
    (0..=128u32).rev().find_map(|prefix| {
        let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
        let address = (number & mask).to_be_bytes();
        table.cidrs.get(&CidrKey { prefix, address }).copied()
    })
}
