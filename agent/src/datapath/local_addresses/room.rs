//! How many local addresses are listed: of all, and of the network namespaces of each user.
//!
//! An address that is left out counts as one of the world, in its own namespace. What is read counts whether or not it
//! is worth to be listed (loopback, the same address on another device), so that reading is bounded too.

use std::{collections::HashMap, ops::ControlFlow};

use imbl::OrdMap;
use ringfence_common::abi::{LocalKey, settings::OWN_ADDRESS};

use super::Snapshot;

/// All: three quarters of what the map holds, so that those which are new have room before others go.
const MOST: usize = 49_152;
/// In all namespaces that one user made who is none of this host's.
const MOST_OF_USER: usize = 4_096;
/// Namespaces of one such user that are looked into.
const MOST_NAMESPACES: usize = 1_024;

/// How much of something there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Addresses.
    pub all: usize,
    /// Addresses of one user.
    pub of_user: usize,
    /// Namespaces of one user.
    pub namespaces: usize,
}

#[derive(Debug, Default)]
struct Used {
    namespaces: usize,
    read: usize,
}

/// Takes in addresses, the most important first.
#[derive(Debug)]
pub(super) struct Room {
    bounds: Bounds,
    read: usize,
    addresses: OrdMap<LocalKey, u8>,
    by_user: HashMap<u32, Used>,
    left_out: usize,
    owner: Option<u32>,
}

impl Default for Room {
    fn default() -> Self {
        Self::new(Bounds {
            all: MOST,
            of_user: MOST_OF_USER,
            namespaces: MOST_NAMESPACES,
        })
    }
}

impl Room {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            read: 0,
            addresses: OrdMap::new(),
            by_user: HashMap::new(),
            left_out: 0,
            owner: None,
        }
    }

    /// Whether one more namespace of the user is looked into.
    pub fn admits(&mut self, owner: u32) -> bool {
        let used = self.by_user.entry(owner).or_default();
        if used.namespaces >= self.bounds.namespaces {
            self.leave_out(Some(owner));
            return false;
        }
        used.namespaces += 1;
        true
    }

    /// For one namespace, of which `owner` chooses the addresses; `None` = this host.
    pub fn part(&mut self, owner: Option<u32>) -> Part<'_> {
        let mut left = self.bounds.all.saturating_sub(self.read);
        if let Some(owner) = owner {
            let used = self.by_user.entry(owner).or_default().read;
            left = left.min(self.bounds.of_user.saturating_sub(used));
        }
        let room = self;
        Part { room, owner, left }
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

    fn leave_out(&mut self, owner: Option<u32>) {
        self.left_out += 1;
        self.owner = owner;
    }
}

/// The room for one namespace.
#[derive(Debug)]
pub(super) struct Part<'a> {
    room: &'a mut Room,
    owner: Option<u32>,
    left: usize,
}

impl Part<'_> {
    /// What one message brings; the last that is worth to be read is the first for which there is no room.
    pub fn take(&mut self, netns: u64, found: &[([u8; 16], u8)]) -> ControlFlow<()> {
        let cost = found.len().max(1);
        if cost > self.left {
            self.room.leave_out(self.owner);
            return ControlFlow::Break(());
        }
        self.left -= cost;
        self.room.read += cost;
        if let Some(owner) = self.owner {
            self.room.by_user.entry(owner).or_default().read += cost;
        }
        for (address, kind) in found {
            let (netns, address) = (netns, *address);
            let listed = self.room.addresses.entry(LocalKey { netns, address });
            // What is both is an own address.
            let listed = listed.or_insert(*kind);
            if *kind == OWN_ADDRESS {
                *listed = OWN_ADDRESS;
            }
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use ringfence_common::abi::settings::BROADCAST;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        all: 100,
        of_user: 20,
        namespaces: 5,
    };

    /// How many messages of a namespace were read.
    fn enter(room: &mut Room, owner: Option<u32>, netns: u64, number: u8) -> u8 {
        let mut part = room.part(owner);
        let mut each = 0..number;
        let end = each.find(|n| part.take(netns, &[([*n; 16], OWN_ADDRESS)]).is_break());
        end.map_or(number, |end| end + 1)
    }

    #[test]
    fn a_user_fills_his_own_part_only() {
        let mut room = Room::new(BOUNDS);
        let _ = enter(&mut room, None, 1, 30);
        for netns in 2..5 {
            let _ = enter(&mut room, Some(1000), netns, 15);
        }
        let _ = enter(&mut room, Some(1001), 10, 20);
        let snapshot = room.into_snapshot(0);
        let of = |netns| {
            let keys = snapshot.addresses.keys();
            keys.filter(|key| key.netns == netns).count()
        };
        assert_eq!([of(1), of(2), of(3), of(4), of(10)], [30, 15, 5, 0, 20]);
        assert_eq!((snapshot.left_out, snapshot.owner), (2, Some(1000)));
    }

    #[test]
    fn all_together_stay_below_the_map() {
        let mut room = Room::new(Bounds { all: 40, ..BOUNDS });
        let _ = enter(&mut room, None, 1, 30);
        assert_eq!(enter(&mut room, None, 2, 30), 11, "not read to the end");
        let snapshot = room.into_snapshot(0);
        assert_eq!(snapshot.addresses.len(), 40);
        assert_eq!((snapshot.left_out, snapshot.owner), (1, None));
    }

    #[test]
    fn what_is_not_listed_is_not_read_without_end_either() {
        let mut room = Room::new(BOUNDS);
        let mut part = room.part(Some(1000));
        let read = (0..1000).take_while(|_| part.take(2, &[]).is_continue());
        assert_eq!(read.count(), 20);
        let again = room.part(Some(1000)).take(3, &[([1; 16], OWN_ADDRESS)]);
        assert!(again.is_break());
    }

    #[test]
    fn a_user_has_so_many_namespaces() {
        let mut room = Room::new(BOUNDS);
        let admitted = (0..9).filter(|_| room.admits(1000)).count();
        assert_eq!((admitted, room.admits(1001)), (5, true));
        let snapshot = room.into_snapshot(0);
        assert_eq!((snapshot.left_out, snapshot.owner), (4, Some(1000)));
    }

    #[test]
    fn what_is_both_is_an_own_address() {
        for kinds in [[OWN_ADDRESS, BROADCAST], [BROADCAST, OWN_ADDRESS]] {
            let mut room = Room::new(BOUNDS);
            for kind in kinds {
                assert!(room.part(None).take(1, &[([1; 16], kind)]).is_continue());
            }
            let found = room.into_snapshot(0).addresses;
            assert_eq!(found.values().copied().collect::<Vec<_>>(), [OWN_ADDRESS]);
        }
    }
}
