//! Section `[refusal]`: what who is refused hears.

use super::{
    read::Section,
    values::{choice, number},
};

const RATE: u64 = 100;
const MAX_RATE: u64 = 10_000;

/// Section `[refusal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What `connect` says where the policy of a listener on this host refuses.
    pub local: LocalRefusal,
    /// What a client on another host, or in another network namespace, hears.
    pub remote: RemoteRefusal,
    /// Answers to such clients a second, and at once.
    pub rate: u32,
}

/// What `connect` says where the policy of a listener on this host refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalRefusal {
    /// `EPERM`, as for what the caller's own policy refuses.
    Eperm,
    /// `ECONNREFUSED`, as if nobody listened.
    Econnrefused,
}

/// What a client on another host, or in another network namespace, hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteRefusal {
    /// Nothing: it waits for its time-out.
    Drop,
    /// What a closed port says: a TCP reset, or ICMP port unreachable.
    Reset,
    /// ICMP administratively prohibited.
    Prohibited,
}

/// Reads the section.
pub(super) fn read(mut section: Section<'_, '_>) -> Refusal {
    let locals = [
        ("eperm", LocalRefusal::Eperm),
        ("econnrefused", LocalRefusal::Econnrefused),
    ];
    let remotes = [
        ("drop", RemoteRefusal::Drop),
        ("reset", RemoteRefusal::Reset),
        ("prohibited", RemoteRefusal::Prohibited),
    ];
    let refusal = Refusal {
        local: choice(&mut section, "local", &locals, LocalRefusal::Eperm),
        remote: choice(&mut section, "remote", &remotes, RemoteRefusal::Drop),
        rate: u32::try_from(number(&mut section, "rate", RATE, MAX_RATE)).unwrap_or(u32::MAX),
    };
    section.finish();
    refusal
}
