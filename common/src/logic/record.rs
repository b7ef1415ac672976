//! What a record asks of the agent.

use crate::abi::{
    event::{ABORT, DENY, Hook},
    socket::REVOKED,
};

/// Whether the agent ends the connection of a record with this kind, hook and flags of its decision: one that was live,
/// or one whose handshake was held until its executable was judged. A refused SYN at a listener is not the listener's end.
#[inline(always)]
#[must_use]
pub const fn ends(kind: u8, hook: u8, flags: u8) -> bool {
    matches!(kind, DENY | ABORT) && (flags & REVOKED != 0 || hook == Hook::Egress as u8)
}
