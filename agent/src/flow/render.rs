//! Writes a record out as the message of the interface. Numbers without a name stay visible, so that an
//! agent older than the kernel programs shows them and does not guess.

use std::net::Ipv6Addr;

use prost_types::Timestamp;
use ringfence_common::abi::{Direction, Reason, event, socket};
use ringfence_policy::compile::RuleSource;
use ringfence_proto::v1;

use super::{Record, record::End};

const NS_PER_SECOND: i64 = 1_000_000_000;

impl Record {
    /// The message, under its position in the log.
    #[must_use]
    pub fn to_proto(&self, sequence: u64) -> v1::Flow {
        let event = &self.event;
        let decision = &event.decision;
        let (source, destination) = self.ends();
        let ingress = decision.direction == Direction::Ingress as u8;
        let (forward_bytes, reverse_bytes) = if ingress {
            (event.rx_bytes, event.tx_bytes)
        } else {
            (event.tx_bytes, event.rx_bytes)
        };
        v1::Flow {
            sequence,
            time: Some(timestamp(self.wall_ns)),
            event: i32::from(event.kind),
            direction: i32::from(decision.direction),
            protocol: u32::from(event.tuple.protocol),
            source: source.as_ref().map(end),
            destination: destination.as_ref().map(end),
            process: self.process(),
            enforced: Some(v1::Decision {
                verdict: i32::from(decision.verdict),
                reason: reason(decision.reason),
                rule: self.rule.as_deref().map(rule),
            }),
            draft: Some(v1::Decision {
                verdict: i32::from(decision.draft_verdict),
                reason: reason(decision.draft_reason),
                rule: self.draft_rule.as_deref().map(rule),
            }),
            decided_by_peer: decision.flags & socket::DECIDED_BY_PEER != 0,
            peer_verified: decision.flags & socket::PEER_VERIFIED != 0,
            revoked: decision.flags & socket::REVOKED != 0,
            forward_bytes,
            reverse_bytes,
            duration_ns: self.duration_ns(),
            never_established: event.flags & event::NEVER_ESTABLISHED != 0,
            rtt_us: event.rtt_us,
            cookie: event.cookie,
            generation: decision.generation,
        }
    }

    fn duration_ns(&self) -> u64 {
        match (self.event.kind, self.event.opened_ns) {
            (event::CLOSE, opened) if opened != 0 => self.event.time_ns.saturating_sub(opened),
            _ => 0,
        }
    }

    fn process(&self) -> Option<v1::Process> {
        let owner = &self.event.owner;
        (owner.tgid != 0).then(|| v1::Process {
            pid: owner.tgid,
            uid: owner.uid,
            command: command(&owner.comm),
            executable: self.executable.as_deref().unwrap_or_default().to_owned(),
            cgroup: self.cgroup.as_deref().unwrap_or_default().to_owned(),
        })
    }
}

/// An address of the kernel as text: IPv4 in dotted form.
#[must_use]
pub fn address(bytes: [u8; 16]) -> String {
    Ipv6Addr::from(bytes).to_canonical().to_string()
}

/// Name of a reason; `unknown(N)` for a number without one.
fn reason(number: u8) -> String {
    Reason::from_number(number).map_or_else(
        || format!("unknown({number})"),
        |reason| reason.name().to_owned(),
    )
}

fn rule(rule: &RuleSource) -> v1::RuleRef {
    v1::RuleRef {
        id: rule.id,
        policy: rule.policy.clone(),
        rule: rule.section.clone(),
        location: if rule.file.is_empty() {
            String::new()
        } else {
            format!("{}:{}", rule.file, rule.line)
        },
    }
}

fn end(end: &End<'_>) -> v1::FlowEnd {
    v1::FlowEnd {
        address: end.address.map(address).unwrap_or_default(),
        port: u32::from(end.port),
        identity: end.party.identity,
        workload: end.party.name.clone(),
        labels: end
            .party
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    }
}

/// The command up to its first NUL; a process chooses it, so control characters are shown, not sent.
fn command(comm: &[u8; 16]) -> String {
    let end = comm
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(comm.len());
    let text = String::from_utf8_lossy(comm.get(..end).unwrap_or_default());
    text.chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

fn timestamp(wall_ns: i64) -> Timestamp {
    Timestamp {
        seconds: wall_ns.div_euclid(NS_PER_SECOND),
        nanos: i32::try_from(wall_ns.rem_euclid(NS_PER_SECOND)).unwrap_or(0),
    }
}
