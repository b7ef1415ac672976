//! Policy into the maps, as one transaction.
//!
//! Two slots exist for each identity; the lowest bit of the active generation says which one programs
//! read. `apply` brings the other slot up to date and then sets the generation: a program judges by
//! the old policy or by the new one, never by a mixture. An identity whose table did not change keeps
//! its inner maps: both slots point to them.

mod held;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use aya::maps::{Array, HashMap, HashOfMaps, MapData};
use ringfence_common::abi::{CidrKey, Header, Identity, RuleEntry, RuleKey, SlotKey, names};
use ringfence_policy::compile::{Compiled, Table};

use super::{
    error::{DatapathError, io_error},
    maps::{self, absent_is_fine, full},
    syscall,
};

/// A program that began before the last flip has ended after this time; an `apply` that comes sooner
/// waits for it.
const GRACE: Duration = Duration::from_millis(50);
/// `BPF_MAP_TYPE_HASH`, `BPF_MAP_TYPE_LPM_TRIE` and `BPF_F_NO_PREALLOC`.
const HASH: u32 = 1;
const LPM_TRIE: u32 = 11;
const NO_PREALLOC: u32 = 1;

/// The maps that hold policy.
pub struct Tables {
    active: Array<MapData, u64>,
    headers: HashMap<MapData, SlotKey, Header>,
    rules: HashOfMaps<MapData, SlotKey>,
    cidrs: HashOfMaps<MapData, SlotKey>,
    /// The outer maps again, for batches.
    outer: [OwnedFd; 2],
    /// What each slot holds; unknown before the first write of this process.
    slots: [Option<BTreeMap<Identity, Table>>; 2],
    generation: u64,
    flipped: Option<Instant>,
}

impl Tables {
    /// Opens the pinned maps below `directory`; the generation goes on from the one that is active.
    ///
    /// # Errors
    /// [`DatapathError::Map`] or [`DatapathError::Pin`].
    pub fn open(directory: &Path) -> Result<Self, DatapathError> {
        let active: Array<MapData, u64> = maps::open(directory, names::ACTIVE)?;
        let generation = active
            .get(&0, 0)
            .map_err(|error| DatapathError::map(names::ACTIVE)(io_error(error)))?;
        Ok(Self {
            active,
            headers: maps::open(directory, names::HEADERS)?,
            rules: maps::open(directory, names::RULES)?,
            cidrs: maps::open(directory, names::CIDRS)?,
            outer: [
                maps::descriptor(directory, names::RULES)?,
                maps::descriptor(directory, names::CIDRS)?,
            ],
            slots: [None, None],
            generation,
            flipped: None,
        })
    }

    /// The active generation.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The tables in force of the identities that `wanted` does not have, also where an earlier process
    /// wrote them.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn others(
        &self,
        wanted: &BTreeMap<Identity, Table>,
    ) -> Result<BTreeMap<Identity, Table>, DatapathError> {
        let slot = usize::from(self.generation % 2 == 1);
        match self.slots.get(slot) {
            Some(Some(mirror)) => Ok(mirror
                .iter()
                .filter(|(identity, _)| !wanted.contains_key(identity))
                .map(|(identity, table)| (*identity, table.clone()))
                .collect()),
            _ => self.held(u32::from(slot == 1), |identity| {
                !wanted.contains_key(&identity)
            }),
        }
    }

    /// Makes `compiled` the policy in force. On an error the policy before stays in force.
    ///
    /// # Errors
    /// [`DatapathError::Full`] or [`DatapathError::Map`].
    pub fn apply(&mut self, compiled: &Compiled) -> Result<u64, DatapathError> {
        if self.flipped.is_some_and(|at| at.elapsed() < GRACE) {
            syscall::wait_for_programs().map_err(DatapathError::map(names::RULES))?;
        }
        let generation = self.generation + 1;
        let slot = usize::from(generation % 2 == 1);
        let before = self.slots.get_mut(slot).and_then(Option::take);
        // Until the slot is whole again nothing is known of it: an error leaves `None` behind.
        let held = match before {
            Some(held) => held,
            None => self.clear(slot)?,
        };
        self.write(slot, &held, &compiled.tables)?;
        self.active
            .set(0, generation, 0)
            .map_err(|error| DatapathError::map(names::ACTIVE)(io_error(error)))?;
        self.generation = generation;
        self.flipped = Some(Instant::now());
        if let Some(mirror) = self.slots.get_mut(slot) {
            *mirror = Some(compiled.tables.clone());
        }
        Ok(generation)
    }

    /// Empties a slot that an earlier process left behind.
    fn clear(&mut self, slot: usize) -> Result<BTreeMap<Identity, Table>, DatapathError> {
        let number = u32::from(slot == 1);
        let ours = |key: &Result<SlotKey, _>| key.as_ref().is_ok_and(|key| key.slot == number);
        let keys: Vec<_> = self.headers.keys().filter(ours).flatten().collect();
        for key in keys {
            absent_is_fine(self.headers.remove(&key), names::HEADERS)?;
        }
        let keys: Vec<_> = self.rules.keys().filter(ours).flatten().collect();
        for key in keys {
            absent_is_fine(self.rules.remove(&key), names::RULES)?;
        }
        let keys: Vec<_> = self.cidrs.keys().filter(ours).flatten().collect();
        for key in keys {
            absent_is_fine(self.cidrs.remove(&key), names::CIDRS)?;
        }
        Ok(BTreeMap::new())
    }

    fn write(
        &mut self,
        slot: usize,
        held: &BTreeMap<Identity, Table>,
        wanted: &BTreeMap<Identity, Table>,
    ) -> Result<(), DatapathError> {
        let number = u32::from(slot == 1);
        let mut rules = Staged::default();
        let mut cidrs = Staged::default();
        let other = self.slots.get(1 - slot).and_then(Option::as_ref);
        for (identity, table) in wanted {
            if held.get(identity) == Some(table) {
                continue;
            }
            let key = SlotKey {
                identity: *identity,
                slot: number,
            };
            let twin = SlotKey {
                identity: *identity,
                slot: 1 - number,
            };
            let same = other.and_then(|other| other.get(identity)) == Some(table);
            rules.add(
                key,
                share(&self.rules, twin, same).map_or_else(|| make_rules(table), Ok)?,
            );
            if !table.cidrs.is_empty() {
                cidrs.add(
                    key,
                    share(&self.cidrs, twin, same).map_or_else(|| make_cidrs(table), Ok)?,
                );
            }
            self.headers
                .insert(key, table.header, 0)
                .map_err(|error| full(io_error(error), names::HEADERS, wanted.len()))?;
        }
        let [rules_map, cidrs_map] = &self.outer;
        // Each batch waits once for running programs; together they wait at the same time.
        std::thread::scope(|scope| {
            let second = scope.spawn(|| cidrs.commit(cidrs_map, names::CIDRS));
            rules.commit(rules_map, names::RULES)?;
            second
                .join()
                .map_err(|_| DatapathError::Missing("a thread that writes CIDRS"))?
        })?;
        self.remove_stale(number, held, wanted)
    }

    /// Removes what the slot held and the new policy does not have.
    fn remove_stale(
        &mut self,
        slot: u32,
        held: &BTreeMap<Identity, Table>,
        wanted: &BTreeMap<Identity, Table>,
    ) -> Result<(), DatapathError> {
        let gone: BTreeSet<_> = held
            .keys()
            .filter(|key| !wanted.contains_key(key))
            .collect();
        for identity in &gone {
            let key = SlotKey {
                identity: **identity,
                slot,
            };
            absent_is_fine(self.headers.remove(&key), names::HEADERS)?;
            absent_is_fine(self.rules.remove(&key), names::RULES)?;
        }
        let had = held.iter().filter(|(_, table)| !table.cidrs.is_empty());
        for (identity, _) in had {
            if wanted
                .get(identity)
                .is_none_or(|table| table.cidrs.is_empty())
            {
                let key = SlotKey {
                    identity: *identity,
                    slot,
                };
                absent_is_fine(self.cidrs.remove(&key), names::CIDRS)?;
            }
        }
        Ok(())
    }
}

/// Inner maps that wait to be put into an outer one.
#[derive(Default)]
struct Staged {
    keys: Vec<SlotKey>,
    maps: Vec<OwnedFd>,
}

impl Staged {
    fn add(&mut self, key: SlotKey, map: OwnedFd) {
        self.keys.push(key);
        self.maps.push(map);
    }

    fn commit(&self, outer: &OwnedFd, name: &'static str) -> Result<(), DatapathError> {
        let fds: Vec<i32> = self.maps.iter().map(AsRawFd::as_raw_fd).collect();
        syscall::update_batch(outer.as_fd(), &self.keys, &fds)
            .map_err(|error| full(error, name, self.keys.len()))
    }
}

/// The inner map that the other slot uses for the same table.
fn share(outer: &HashOfMaps<MapData, SlotKey>, twin: SlotKey, same: bool) -> Option<OwnedFd> {
    if !same {
        return None;
    }
    let inner: MapData = outer.get(&twin, 0).ok()?;
    inner.fd().as_fd().try_clone_to_owned().ok()
}

fn make_rules(table: &Table) -> Result<OwnedFd, DatapathError> {
    let keys: Vec<RuleKey> = table.entries.keys().copied().collect();
    let values: Vec<RuleEntry> = table.entries.values().copied().collect();
    make::<RuleKey, RuleEntry>(HASH, names::RULES, &keys, &values)
}

fn make_cidrs(table: &Table) -> Result<OwnedFd, DatapathError> {
    let keys: Vec<CidrKey> = table.cidrs.keys().copied().collect();
    let values: Vec<u32> = table.cidrs.values().copied().collect();
    make::<CidrKey, u32>(LPM_TRIE, names::CIDRS, &keys, &values)
}

/// Makes an inner map that is just large enough and fills it.
fn make<K: aya::Pod, V: aya::Pod>(
    kind: u32,
    name: &'static str,
    keys: &[K],
    values: &[V],
) -> Result<OwnedFd, DatapathError> {
    let entries = u32::try_from(keys.len().max(1)).map_err(|_| DatapathError::Full {
        name,
        count: keys.len(),
    })?;
    let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let definition = aya_obj::Map::new_from_params(
        kind,
        size(size_of::<K>()),
        size(size_of::<V>()),
        entries,
        NO_PREALLOC,
    );
    let map = MapData::create(definition, "ringfence_inner", None)
        .map_err(|error| DatapathError::map(name)(io_error(error)))?;
    let fd = map
        .fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(DatapathError::map(name))?;
    syscall::update_batch(fd.as_fd(), keys, values)
        .map_err(|error| full(error, name, keys.len()))?;
    Ok(fd)
}
