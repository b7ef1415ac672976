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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_cgroups_of_root_ask_apart_and_a_user_with_all_of_his_ids_at_once() {
        let subordinates = Subordinates::parse("1000:100000:65536\n");
        let of = |uid, cgroup| Asker::of(uid, cgroup, &subordinates);
        assert_eq!(of(0, 7), Asker::Root(7));
        assert_ne!(of(0, 7), of(0, 8), "cgroups of root");
        assert_ne!(of(1000, 7), of(1001, 7), "users of one cgroup");
        assert_ne!(of(1000, 7), of(0, 7), "a user and root");
        // Neither by many cgroups nor by ids that are his has a user more turns.
        for (uid, cgroup) in [(1000, 7), (1000, 8), (100_000, 9), (165_535, 7)] {
            assert_eq!(of(uid, cgroup), Asker::User(1000), "{uid} in {cgroup}");
        }
    }
}
