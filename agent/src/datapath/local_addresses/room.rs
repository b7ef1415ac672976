//! How many local addresses are listed: of all, and of the network namespaces of each user.
//!
//! An address that is left out counts as one of the world, in its own namespace.

use std::collections::HashMap;

use imbl::OrdMap;
use ringfence_common::abi::LocalKey;

use super::Snapshot;

/// All: three quarters of what the map holds, so that those which are new have room before others go.
const MOST: usize = 49_152;
/// In all namespaces that one user made who is none of this host's.
const MOST_OF_USER: usize = 4_096;

/// Takes in addresses, the most important first.
#[derive(Debug)]
pub(super) struct Room {
    most: usize,
    most_of_user: usize,
    addresses: OrdMap<LocalKey, u8>,
    by_user: HashMap<u32, usize>,
    left_out: usize,
    owner: Option<u32>,
}

impl Default for Room {
    fn default() -> Self {
        Self::new(MOST, MOST_OF_USER)
    }
}

impl Room {
    fn new(most: usize, most_of_user: usize) -> Self {
        Self {
            most,
            most_of_user,
            addresses: OrdMap::new(),
            by_user: HashMap::new(),
            left_out: 0,
            owner: None,
        }
    }

    /// Those of one namespace, of which `owner` chooses the addresses; `None` = this host.
    pub fn enter(&mut self, owner: Option<u32>, addresses: OrdMap<LocalKey, u8>) {
        let mut room = self.most.saturating_sub(self.addresses.len());
        if let Some(owner) = owner {
            let used = self.by_user.entry(owner).or_default();
            room = room.min(self.most_of_user.saturating_sub(*used));
            *used += room.min(addresses.len());
        }
        if addresses.len() > room {
            self.left_out += addresses.len() - room;
            self.owner = owner;
        }
        self.addresses.extend(addresses.into_iter().take(room));
    }

    /// What was taken in.
    pub fn into_snapshot(self, unread: usize) -> Snapshot {
        Snapshot {
            addresses: self.addresses,
            unread,
            left_out: self.left_out,
            owner: self.owner,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(netns: u64, number: u8) -> OrdMap<LocalKey, u8> {
        let key = |n| LocalKey {
            netns,
            address: [n; 16],
        };
        (0..number).map(|n| (key(n), 1)).collect()
    }

    #[test]
    fn a_user_fills_his_own_part_only() {
        let mut room = Room::new(100, 20);
        room.enter(None, addresses(1, 30));
        for netns in 2..10 {
            room.enter(Some(1000), addresses(netns, 15));
        }
        room.enter(Some(1001), addresses(10, 20));
        let snapshot = room.into_snapshot(0);
        let of = |netns| {
            let keys = snapshot.addresses.keys();
            keys.filter(|key| key.netns == netns).count()
        };
        assert_eq!([of(1), of(2), of(3), of(4), of(10)], [30, 15, 5, 0, 20]);
        assert_eq!((snapshot.left_out, snapshot.owner), (100, Some(1000)));
    }

    #[test]
    fn all_together_stay_below_the_map() {
        let mut room = Room::new(40, 20);
        room.enter(None, addresses(1, 30));
        room.enter(None, addresses(2, 30));
        let snapshot = room.into_snapshot(0);
        assert_eq!(snapshot.addresses.len(), 40);
        assert_eq!((snapshot.left_out, snapshot.owner), (20, None));
    }
}
