//! TCP ports that somebody asked for before it was known who that is, and that his policy does not let him have.
//!
//! `bind` can't wait for the agent's answer, so it is judged here: what listens is ended, and the port goes to others who
//! ask for it; what is only bound is left until it listens (the kernel lists it without what the programs know of it). A port that was asked for by number belongs to its socket as long as a descriptor is open
//! (`SOCK_BINDPORT_LOCK`), so `SO_REUSEADDR` is set for it, as most servers do for themselves. The kernel programs record
//! the refusal when the listener ends.

use std::{
    collections::HashMap,
    fs,
    time::{Duration, Instant},
};

use ringfence_common::{
    abi::{
        Direction, FailsafeEntry, Identity, Owner, Tuple, Verdict, identity::is_workload,
        tuple::TCP,
    },
    logic::failsafe,
};
use ringfence_policy::{
    compile::Compiled,
    explain::{Query, answer},
};

use crate::{
    datapath::{
        destroy::Destroyer,
        survey::{FoundSocket, Survey},
    },
    identity::live,
};

/// Policy and identities are published one after the other: what is refused must be so for this long.
const SETTLED: Duration = Duration::from_millis(500);

/// What decides besides the policy.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Draft mode: nothing is refused.
    pub draft: bool,
    /// Ports that are never refused.
    pub failsafe: Vec<FailsafeEntry>,
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub boot_now_ns: fn() -> u64,
}

/// Ports that are refused to who has them.
pub(super) struct Unjudged {
    terms: Terms,
    /// By cookie of the socket.
    refused: HashMap<u64, Refused>,
    destroyer: Option<Destroyer>,
}

#[derive(Clone, Copy)]
struct Refused {
    since: Instant,
    /// Every process was searched for it.
    searched: bool,
}

impl Unjudged {
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            refused: HashMap::new(),
            destroyer: None,
        }
    }

    /// Takes the port from who was refused it some time ago and still is; `whose` says who an owner is now.
    pub fn look(
        &mut self,
        sockets: &[FoundSocket],
        whose: impl Fn(&Owner) -> Identity,
        compiled: &Compiled,
    ) {
        let before = std::mem::take(&mut self.refused);
        let listeners = sockets.iter().filter(|socket| socket.receives);
        for socket in listeners.filter(|socket| socket.unjudged) {
            let Some(owner) = socket.owner else { continue };
            if !is_refused(whose(&owner), socket, compiled, &self.terms) {
                continue;
            }
            let first = Refused {
                since: Instant::now(),
                searched: false,
            };
            let mut known = before.get(&socket.cookie).copied().unwrap_or(first);
            if known.since.elapsed() >= SETTLED {
                self.end(socket);
                if !give_way(owner.tgid, socket) && !known.searched {
                    known.searched = true;
                    let _found = processes().any(|tgid| give_way(tgid, socket));
                }
            }
            let _ = self.refused.insert(socket.cookie, known);
        }
        if let Some(destroyer) = &mut self.destroyer {
            destroyer.release_unused();
        }
    }

    fn end(&mut self, socket: &FoundSocket) {
        let tuple = Tuple {
            local: socket.address,
            local_port: socket.port,
            protocol: TCP,
            ..Tuple::default()
        };
        let ended = match &mut self.destroyer {
            Some(destroyer) => destroyer.end_listener(socket.namespace, &tuple, socket.cookie),
            none => Destroyer::new().and_then(|new| {
                let destroyer = none.insert(new);
                destroyer.end_listener(socket.namespace, &tuple, socket.cookie)
            }),
        };
        match ended {
            Ok(outcome) => tracing::info!(
                port = socket.port,
                cookie = socket.cookie,
                ?outcome,
                "listener of who may not listen there"
            ),
            Err(error) => tracing::warn!(
                %error,
                port = socket.port,
                "who may not listen there keeps a port; what is sent to it is dropped"
            ),
        }
    }
}

/// Whether it is known who has the port and that he may not have it.
fn is_refused(who: Identity, socket: &FoundSocket, compiled: &Compiled, terms: &Terms) -> bool {
    let listed = |entry| failsafe::names(entry, TCP, socket.port);
    if !is_workload(who) || terms.draft || terms.failsafe.iter().any(listed) {
        return false;
    }
    let query = Query {
        local: who,
        direction: Direction::Listen,
        peer: 0,
        verified: false,
        peer_address: None,
        protocol: TCP,
        port: socket.port,
    };
    answer(compiled, &query, (terms.boot_now_ns)())
        .enforced
        .verdict
        == Verdict::Deny
}

/// Lets others have the port, if the process has the socket open.
fn give_way(tgid: u32, socket: &FoundSocket) -> bool {
    let sockets = live::sockets_of(tgid).into_iter();
    let mut same = sockets.filter(|(_, inode)| *inode == socket.inode);
    same.any(|(fd, _)| Survey::give_way(tgid, fd, socket.cookie))
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use ringfence_common::abi::{
        identity::{PENDING, UNKNOWN},
        rule::{DENY_LISTEN, SELECTED},
    };
    use ringfence_policy::compile::Table;

    use super::*;
    use crate::endpoints::tests::{GONE, KEY, WEB, socket};

    #[test]
    fn only_who_is_known_and_may_not_listen_is_refused_the_port() {
        let mut compiled = Compiled::default();
        let mut table = Table::default();
        table.header.enforced |= SELECTED | DENY_LISTEN;
        let _ = compiled.tables.insert(WEB, table.into());
        let terms = |draft, failsafe| Terms {
            draft,
            failsafe,
            boot_now_ns: || 1,
        };
        let plain = terms(false, Vec::new());
        let port = socket(Some((WEB, KEY)));
        assert!(is_refused(WEB, &port, &compiled, &plain));
        assert!(!is_refused(GONE, &port, &compiled, &plain), "not selected");
        for nobody in [PENDING, UNKNOWN] {
            assert!(!is_refused(nobody, &port, &compiled, &plain));
        }
        let draft = terms(true, Vec::new());
        assert!(!is_refused(WEB, &port, &compiled, &draft));
        let safe = FailsafeEntry {
            protocol: TCP,
            first_port: port.port,
            last_port: port.port,
            ..FailsafeEntry::default()
        };
        let listed = terms(false, vec![safe]);
        assert!(!is_refused(WEB, &port, &compiled, &listed));
    }
}
