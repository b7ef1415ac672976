//! On whose account the agent works: who can make it work is bounded by taking turns with the others.

use super::Subordinates;

/// A user, or root in one cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asker {
    /// Real user, or the one whose subordinate id that is.
    User(u32),
    /// Cgroup of a process of root.
    Root(u64),
}

impl Asker {
    /// On whose account a process of this real user in this cgroup asks.
    #[must_use]
    pub fn of(uid: u32, cgroup: u64, subordinates: &Subordinates) -> Self {
        match uid {
            0 => Self::Root(cgroup),
            uid => Self::User(subordinates.holder(uid)),
        }
    }
}
