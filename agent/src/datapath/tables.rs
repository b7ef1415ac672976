//! Policy into the maps, as one transaction.
//!
//! Two slots exist for each identity; the lowest bit of the active generation says which one programs
//! read. `apply` brings the other slot up to date and then sets the generation: a program judges by
//! the old policy or by the new one, never by a mixture. An identity whose table did not change keeps
//! its inner maps: both slots point to them.

mod held;
mod outer;

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
};

use aya::maps::{Array, HashMap, HashOfMaps, MapData};
use imbl::{OrdMap, ordmap::DiffItem};
use ringfence_common::abi::{CidrKey, Header, Identity, RuleEntry, RuleKey, SlotKey, names};
use ringfence_policy::compile::{Compiled, Table};

use self::outer::{Begun, Change};
use super::{
    error::{DatapathError, io_error},
    maps::{self, absent_is_fine, full},
    syscall,
};

/// `BPF_MAP_TYPE_HASH`, `BPF_MAP_TYPE_LPM_TRIE` and `BPF_F_NO_PREALLOC`.
const HASH: u32 = 1;
const LPM_TRIE: u32 = 11;
const NO_PREALLOC: u32 = 1;

/// Tables of one slot. Copies share what they have in common, and what is shared is not compared.
type Slot = OrdMap<Identity, Arc<Table>>;

/// The maps that hold policy.
pub struct Tables {
    active: Array<MapData, u64>,
    headers: HashMap<MapData, SlotKey, Header>,
    rules: HashOfMaps<MapData, SlotKey>,
    cidrs: HashOfMaps<MapData, SlotKey>,
    /// The outer maps again, for batches.
    outer: [OwnedFd; 2],
    /// What each slot holds; unknown before the first write of this process.
    slots: [Option<Slot>; 2],
    generation: u64,
    /// Waits for the programs that began before the last flip.
    grace: Option<JoinHandle<io::Result<()>>>,
    /// What the last `apply` left to be done.
    behind: Vec<Begun>,
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
            // An agent that ended a moment ago may have flipped.
            grace: Some(thread::spawn(syscall::wait_for_programs)),
            behind: Vec::new(),
        })
    }

    /// The active generation.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The tables in force, as the maps hold them.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn in_force(&self) -> Result<Slot, DatapathError> {
        self.held(u32::from(self.generation % 2 == 1))
    }

    /// Makes `compiled` the policy in force. On an error the policy before stays in force.
    ///
    /// # Errors
    /// [`DatapathError::Full`] or [`DatapathError::Map`].
    pub fn apply(&mut self, compiled: &Compiled) -> Result<u64, DatapathError> {
        self.end_changes();
        self.end_grace()?;
        let generation = self.generation + 1;
        let slot = usize::from(generation % 2 == 1);
        // Until the slot is whole again nothing is known of it: an error leaves `None` behind.
        let held = self.slots.get_mut(slot).and_then(Option::take);
        self.write(slot, held.as_ref(), &compiled.tables)?;
        self.active
            .set(0, generation, 0)
            .map_err(|error| DatapathError::map(names::ACTIVE)(io_error(error)))?;
        self.generation = generation;
        self.grace = Some(thread::spawn(syscall::wait_for_programs));
        if let Some(mirror) = self.slots.get_mut(slot) {
            *mirror = Some(compiled.tables.clone());
        }
        Ok(generation)
    }

    /// Has everything judged anew by the policy in force: what was decided until now is of an older generation.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn renew(&mut self) -> Result<(), DatapathError> {
        // The lowest bit, which is the slot, stays.
        let generation = self.generation + 2;
        self.active
            .set(0, generation, 0)
            .map_err(|error| DatapathError::map(names::ACTIVE)(io_error(error)))?;
        self.generation = generation;
        Ok(())
    }

    /// Waits until no program reads the slot that was in use before the last flip.
    fn end_grace(&mut self) -> Result<(), DatapathError> {
        let Some(grace) = self.grace.take() else {
            return Ok(());
        };
        let waited = grace
            .join()
            .unwrap_or_else(|_| syscall::wait_for_programs());
        waited.map_err(DatapathError::map(names::ACTIVE))
    }

    /// Waits for what the last `apply` left to be done. Where that failed, the slot holds more than is
    /// known: nothing that programs use, but the next write has to look.
    fn end_changes(&mut self) {
        for mut begun in self.behind.drain(..) {
            if let Err(error) = begun.end() {
                tracing::warn!(%error, "the policy before the last is not removed yet");
                self.slots = [None, None];
            }
        }
    }

    /// Brings a slot up to date; `held` is what it holds, unknown where an earlier process wrote it.
    fn write(
        &mut self,
        slot: usize,
        held: Option<&Slot>,
        wanted: &Slot,
    ) -> Result<(), DatapathError> {
        let number = u32::from(slot == 1);
        let [mut rules, mut cidrs] = self.without_stale(number, held, wanted)?;
        let other = self.slots.get(1 - slot).and_then(Option::as_ref);
        let nothing = Slot::new();
        for item in held.unwrap_or(&nothing).diff(wanted) {
            let (identity, table) = match item {
                DiffItem::Add(identity, table) => (identity, table),
                DiffItem::Update { new, .. } => new,
                DiffItem::Remove(..) => continue,
            };
            let key = SlotKey {
                identity: *identity,
                slot: number,
            };
            let twin = SlotKey {
                identity: *identity,
                slot: 1 - number,
            };
            let same = other.and_then(|other| other.get(identity)) == Some(table);
            if has_rules(table) {
                rules.add(
                    key,
                    share(&self.rules, twin, same).map_or_else(|| make_rules(table), Ok)?,
                );
            }
            if has_cidrs(table) {
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
        let rules = rules.start(rules_map)?;
        let cidrs = cidrs.start(cidrs_map)?;
        self.behind.extend(rules.seen(rules_map)?);
        self.behind.extend(cidrs.seen(cidrs_map)?);
        Ok(())
    }

    /// Removes the headers of identities that the new policy does not have: without its header no
    /// program looks at an identity's rules. The answer are the changes that remove those, too.
    fn without_stale(
        &mut self,
        slot: u32,
        held: Option<&Slot>,
        wanted: &Slot,
    ) -> Result<[Change; 2], DatapathError> {
        let [headers, rules, cidrs]: [Vec<Identity>; 3] = match held {
            Some(held) => {
                let differ = || {
                    held.diff(wanted).filter_map(|item| match item {
                        DiffItem::Remove(identity, table)
                        | DiffItem::Update {
                            old: (identity, table),
                            ..
                        } => Some((*identity, table)),
                        DiffItem::Add(..) => None,
                    })
                };
                let with = |has: fn(&Table) -> bool| {
                    let tables = differ().filter(move |(_, table)| has(table));
                    tables.map(|(identity, _)| identity).collect()
                };
                [with(|_| true), with(has_rules), with(has_cidrs)]
            }
            None => [
                in_slot(slot, self.headers.keys()),
                in_slot(slot, self.rules.keys()),
                in_slot(slot, self.cidrs.keys()),
            ],
        };
        let stale = |held: Vec<Identity>, needed: fn(&Table) -> bool| -> Vec<SlotKey> {
            held.into_iter()
                .filter(|identity| !wanted.get(identity).is_some_and(|table| needed(table)))
                .map(|identity| SlotKey { identity, slot })
                .collect()
        };
        for key in stale(headers, |_| true) {
            absent_is_fine(self.headers.remove(&key), names::HEADERS)?;
        }
        Ok([
            Change::new(names::RULES, stale(rules, has_rules)),
            Change::new(names::CIDRS, stale(cidrs, has_cidrs)),
        ])
    }
}

fn has_rules(table: &Table) -> bool {
    !table.entries.is_empty()
}

fn has_cidrs(table: &Table) -> bool {
    !table.cidrs.is_empty()
}

fn in_slot(
    slot: u32,
    keys: impl Iterator<Item = Result<SlotKey, aya::maps::MapError>>,
) -> Vec<Identity> {
    keys.flatten()
        .filter(|key| key.slot == slot)
        .map(|key| key.identity)
        .collect()
}

/// The inner map that the other slot uses for the same table.
fn share(outer: &HashOfMaps<MapData, SlotKey>, twin: SlotKey, same: bool) -> Option<MapData> {
    same.then(|| outer.get(&twin, 0).ok()).flatten()
}

fn make_rules(table: &Table) -> Result<MapData, DatapathError> {
    let keys: Vec<RuleKey> = table.entries.keys().copied().collect();
    let values: Vec<RuleEntry> = table.entries.values().copied().collect();
    make::<RuleKey, RuleEntry>(HASH, names::RULES, &keys, &values)
}

fn make_cidrs(table: &Table) -> Result<MapData, DatapathError> {
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
) -> Result<MapData, DatapathError> {
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
    syscall::update_batch(map.fd().as_fd(), keys, values)
        .map_err(|error| full(error, name, keys.len()))?;
    Ok(map)
}
