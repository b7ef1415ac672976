//! One record: the kernel's event with the names of its time.
//!
//! It is kept compact (names are shared) because tens of thousands are held; [`super::render`] writes
//! it out when somebody asks.

use std::sync::Arc;

use ringfence_common::abi::{self, Direction, event, tuple};
use ringfence_policy::compile::RuleSource;

use super::{Names, Party, ProcessBook};

/// An event of a flow with the names that held when it was read.
#[derive(Clone, Debug)]
pub struct Record {
    /// What the kernel sent; `kind` is `OPEN`, `CLOSE` or `DENY`.
    pub event: abi::Event,
    /// Wall clock, nanoseconds since 1970.
    pub wall_ns: i64,
    /// Owner of the local socket.
    pub local: Arc<Party>,
    /// The other end.
    pub peer: Arc<Party>,
    /// Rule that decided.
    pub rule: Option<Arc<RuleSource>>,
    /// Rule that decides with the draft policies added.
    pub draft_rule: Option<Arc<RuleSource>>,
    /// Path of the executable.
    pub executable: Option<Arc<str>>,
    /// cgroup below the guarded root.
    pub cgroup: Option<Arc<str>>,
}

/// Makes the record of `event`; `None` if it is not about a flow. `boot_to_wall_ns` is what must be
/// added to `CLOCK_BOOTTIME` to get the wall clock, in nanoseconds.
pub fn record(
    event: &abi::Event,
    names: &Names,
    processes: &mut ProcessBook,
    boot_to_wall_ns: i64,
) -> Option<Record> {
    if !matches!(event.kind, event::OPEN | event::CLOSE | event::DENY) {
        return None;
    }
    let boot_ns = i64::try_from(event.time_ns).unwrap_or(i64::MAX);
    Some(Record {
        event: *event,
        wall_ns: boot_ns.saturating_add(boot_to_wall_ns),
        local: names.party(event.owner.identity),
        peer: names.party(event.decision.peer),
        rule: names.rule(event.decision.rule),
        draft_rule: names.rule(event.decision.draft_rule),
        executable: processes.executable(&event.owner),
        cgroup: processes.cgroup(event.owner.cgroup),
    })
}

/// One end of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End<'r> {
    pub(crate) party: &'r Party,
    /// `None` where the hook knew none.
    pub(crate) address: Option<[u8; 16]>,
    pub(crate) port: u16,
}

impl Record {
    /// Source and destination. A port to listen on has a destination only.
    pub(crate) fn ends(&self) -> (Option<End<'_>>, Option<End<'_>>) {
        let tuple = &self.event.tuple;
        let local = End {
            party: &self.local,
            address: known(tuple.local, tuple.local_port),
            port: tuple.local_port,
        };
        let peer = End {
            party: &self.peer,
            address: known(tuple.remote, tuple.remote_port),
            port: tuple.remote_port,
        };
        let direction = self.event.decision.direction;
        let (mut source, mut destination) = if direction == Direction::Ingress as u8 {
            (peer, local)
        } else if direction == Direction::Listen as u8 {
            return (None, Some(local));
        } else {
            (local, peer)
        };
        // ICMP has no ports: the source shows the echo identifier and the destination the type.
        if matches!(tuple.protocol, tuple::ICMP | tuple::ICMPV6) {
            (source.port, destination.port) = (tuple.local_port, tuple.remote_port);
        }
        (Some(source), Some(destination))
    }
}

/// An address that is all zero together with its port was not known to the hook.
fn known(address: [u8; 16], port: u16) -> Option<[u8; 16]> {
    (address != [0; 16] || port != 0).then_some(address)
}
