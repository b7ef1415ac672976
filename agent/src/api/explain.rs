//! What would be decided about a flow: the answer of both ends.

use std::{net::IpAddr, sync::Arc};

use ringfence_common::{
    abi::{Direction, FailsafeEntry, Identity, Reason, Verdict, identity, tuple},
    logic::{
        address::{is_loopback, map_v4},
        failsafe,
        verdict::Outcome,
    },
};
use ringfence_policy::explain::{Query, answer};
use ringfence_proto::v1;
use tonic::Status;

use super::{PolicyView, convert::decision};
use crate::config::Mode;

/// Similarity above which a known name is offered for an unknown one (Jaro-Winkler, 0 to 1).
const CLOSE: f64 = 0.7;
/// Names offered at most.
const OFFERED: usize = 3;
/// The outcome of a flow on the failsafe list.
const FAILSAFE: Outcome = Outcome {
    verdict: Verdict::Allow,
    reason: Reason::AllowedFailsafe,
    rule: 0,
    until: u64::MAX,
};

/// One end of the flow in question.
struct Party {
    /// Name of the workload; `None` for an address or a reserved identity.
    workload: Option<String>,
    identity: Identity,
    address: Option<[u8; 16]>,
}

/// What an answer is made from: the policy in force, and the configuration that counts beside it.
pub(super) struct Judge<'a> {
    pub(super) view: Arc<PolicyView>,
    pub(super) failsafe: &'a [FailsafeEntry],
    pub(super) mode: Mode,
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub(super) now_boot_ns: u64,
}

impl Judge<'_> {
    /// The answer to `Explain`.
    pub(super) fn explain(
        &self,
        request: &v1::ExplainRequest,
    ) -> Result<v1::ExplainResponse, Status> {
        let source = party(&self.view, "from", &request.from)?;
        let destination = party(&self.view, "to", &request.to)?;
        let protocol = protocol(&request.protocol)?;
        let port = port(protocol, request.port)?;
        if source.workload.is_none() && destination.workload.is_none() {
            return Err(Status::invalid_argument(
                "`from` and `to`: policy decides only where one end is a workload; \
                 name one (see `ringfence workload list`)",
            ));
        }
        let mut notes = Vec::new();
        let mut side = |local: &Party, peer: &Party, direction| {
            let query = Query {
                local: local.identity,
                direction,
                peer: peer.identity,
                // Both ends are asked about on this host, where identities are proved.
                verified: peer.identity == identity::HOST || peer.workload.is_some(),
                peer_address: peer.address,
                protocol,
                port,
            };
            Some(self.side(local.workload.clone()?, &query, &mut notes))
        };
        let egress = side(&source, &destination, Direction::Egress);
        let ingress = side(&destination, &source, Direction::Ingress);
        let found = |verdict: Verdict| {
            let enforced = |side: &v1::Side| side.enforced.as_ref().map(|found| found.verdict);
            [&egress, &ingress]
                .into_iter()
                .flatten()
                .any(|side| enforced(side) == Some(verdict as i32))
        };
        let allowed = !found(Verdict::Deny);
        if found(Verdict::Audit) {
            notes.push(
                "the agent is in draft mode: what is denied passes, and is recorded as audit"
                    .to_owned(),
            );
        }
        Ok(v1::ExplainResponse {
            egress,
            ingress,
            allowed,
            notes,
        })
    }

    /// One end's answer, settled as the kernel settles it: the failsafe list comes before the mode.
    fn side(&self, workload: String, query: &Query, notes: &mut Vec<String>) -> v1::Side {
        let mut answer = answer(&self.view.compiled, query, self.now_boot_ns);
        if answer.enforced.verdict == Verdict::Deny && query.direction == Direction::Ingress {
            match query.peer_address {
                Some(address) if self.is_failsafe(query, Some(&address)) => {
                    answer.enforced = FAILSAFE;
                    answer.draft = FAILSAFE;
                }
                None if self.is_failsafe(query, None) => notes.push(format!(
                    "the failsafe list allows port {} of {workload} to some addresses: name the source's, \
                     as in NAME@ADDRESS",
                    query.port
                )),
                Some(_) | None => {}
            }
        }
        if answer.enforced.verdict == Verdict::Deny && self.mode == Mode::Draft {
            answer.enforced.verdict = Verdict::Audit;
        }
        v1::Side {
            workload,
            enforced: Some(decision(&self.view.compiled, &answer.enforced)),
            draft: Some(decision(&self.view.compiled, &answer.draft)),
        }
    }

    /// Whether the failsafe list covers the flow; without an address, whether it could.
    fn is_failsafe(&self, query: &Query, address: Option<&[u8; 16]>) -> bool {
        self.failsafe.iter().any(|entry| {
            let address = address.unwrap_or(&entry.address);
            failsafe::covers(entry, address, query.protocol, query.port)
        })
    }
}

/// A workload, `workload@address`, an address, or a reserved identity.
fn party(view: &PolicyView, field: &str, text: &str) -> Result<Party, Status> {
    if text.is_empty() {
        return Err(Status::invalid_argument(format!(
            "`{field}` is empty; name a workload or an address"
        )));
    }
    let (name, address) = match text.split_once('@') {
        Some((name, address)) => (name, Some(numeric(field, address)?)),
        None => (text, None),
    };
    if let Some(identity) = view.identities.get(name) {
        return Ok(Party {
            workload: Some(name.to_owned()),
            identity: *identity,
            address,
        });
    }
    let reserved = match name {
        "host" => Some(identity::HOST),
        "world" => Some(identity::WORLD),
        "remote-host" => Some(identity::REMOTE_HOST),
        _ => None,
    };
    if let Some(identity) = reserved {
        return Ok(Party {
            workload: None,
            identity,
            address,
        });
    }
    match (name.parse::<IpAddr>(), address) {
        (Ok(ip), None) => {
            let address = bytes(ip);
            let identity = if is_loopback(&address) {
                identity::HOST
            } else {
                identity::WORLD
            };
            Ok(Party {
                workload: None,
                identity,
                address: Some(address),
            })
        }
        _ => Err(unknown(view, field, name)),
    }
}

pub(super) fn unknown(view: &PolicyView, field: &str, name: &str) -> Status {
    let mut close: Vec<(f64, &str)> = view
        .identities
        .keys()
        .map(|known| (strsim::jaro_winkler(name, known), known.as_str()))
        .filter(|(similarity, _)| *similarity >= CLOSE)
        .collect();
    close.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let names: Vec<&str> = close
        .iter()
        .take(OFFERED)
        .map(|(_, known)| *known)
        .collect();
    let remedy = if names.is_empty() {
        "see `ringfence workload list`".to_owned()
    } else {
        format!("did you mean {}?", names.join(", "))
    };
    let shown: String = name.chars().take(80).collect();
    Status::not_found(format!(
        "`{field}`: no workload is named `{shown}`; {remedy}"
    ))
}

fn numeric(field: &str, text: &str) -> Result<[u8; 16], Status> {
    text.parse().map(bytes).map_err(|_| {
        let shown: String = text.chars().take(80).collect();
        Status::invalid_argument(format!(
            "`{field}`: `{shown}` is no address; write a numeric one, as in db@10.0.0.2"
        ))
    })
}

fn bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => map_v4(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn protocol(text: &str) -> Result<u8, Status> {
    match text {
        "" | "tcp" => Ok(tuple::TCP),
        "udp" => Ok(tuple::UDP),
        "icmp" => Ok(tuple::ICMP),
        "icmpv6" => Ok(tuple::ICMPV6),
        number => number.parse().map_err(|_| {
            Status::invalid_argument(
                "`protocol` is not known; write tcp, udp, icmp, icmpv6 or a number from 0 to 255",
            )
        }),
    }
}

fn port(protocol: u8, port: u32) -> Result<u16, Status> {
    let max: u16 = if matches!(protocol, tuple::ICMP | tuple::ICMPV6) {
        255
    } else {
        u16::MAX
    };
    let valid = u16::try_from(port).ok().filter(|port| *port <= max);
    valid.ok_or_else(|| {
        Status::invalid_argument(format!("`port`: {port} is too large; write 0 to {max}"))
    })
}
