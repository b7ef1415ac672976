//! Reads back tables that an earlier process wrote.

use std::{collections::BTreeMap, sync::Arc};

use aya::maps::{HashMap, LpmTrie, Map, MapData, MapError};
use ringfence_common::abi::{CidrKey, RuleEntry, RuleKey, SlotKey, names, rule::TIER_PEER_CIDR};
use ringfence_policy::compile::Table;

use super::{
    super::error::{DatapathError, io_error},
    HashOfMaps, Slot, Tables,
};

impl Tables {
    /// What slot number `slot` holds.
    pub(super) fn held(&self, slot: u32) -> Result<Slot, DatapathError> {
        let mut held = Slot::new();
        for key in self.headers.keys() {
            let key = key.map_err(failed(names::HEADERS))?;
            if key.slot == slot {
                let mut table = Table {
                    header: self.headers.get(&key, 0).map_err(failed(names::HEADERS))?,
                    ..Table::default()
                };
                // Programs read no other; what is left of a policy before may still be there.
                let [egress, ingress, listen] = table.header.tiers;
                if egress | ingress | listen != 0 {
                    table.entries = rules(&self.rules, key)?;
                }
                if (egress | ingress) & TIER_PEER_CIDR != 0 {
                    table.cidrs = cidrs(&self.cidrs, key)?;
                }
                let _ = held.insert(key.identity, Arc::new(table));
            }
        }
        Ok(held)
    }
}

fn rules(
    outer: &HashOfMaps<MapData, SlotKey>,
    key: SlotKey,
) -> Result<BTreeMap<RuleKey, RuleEntry>, DatapathError> {
    let Some(inner) = inner(outer, key, names::RULES)? else {
        return Ok(BTreeMap::new());
    };
    let map: HashMap<MapData, RuleKey, RuleEntry> =
        inner.try_into().map_err(failed(names::RULES))?;
    map.iter()
        .collect::<Result<_, _>>()
        .map_err(failed(names::RULES))
}

fn cidrs(
    outer: &HashOfMaps<MapData, SlotKey>,
    key: SlotKey,
) -> Result<BTreeMap<CidrKey, u32>, DatapathError> {
    let Some(inner) = inner(outer, key, names::CIDRS)? else {
        return Ok(BTreeMap::new());
    };
    let map: LpmTrie<MapData, [u8; 16], u32> = inner.try_into().map_err(failed(names::CIDRS))?;
    map.iter()
        .map(|entry| {
            entry.map(|(key, class)| {
                let key = CidrKey {
                    prefix: key.prefix_len(),
                    address: key.data(),
                };
                (key, class)
            })
        })
        .collect::<Result<_, _>>()
        .map_err(failed(names::CIDRS))
}

/// The inner map of a key; an identity without entries may have none.
fn inner(
    outer: &HashOfMaps<MapData, SlotKey>,
    key: SlotKey,
    name: &'static str,
) -> Result<Option<Map>, DatapathError> {
    match outer.get(&key, 0) {
        Ok(inner) => Map::from_map_data(inner).map(Some).map_err(failed(name)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(failed(name)(error)),
    }
}

fn failed(name: &'static str) -> impl Fn(MapError) -> DatapathError {
    move |error| DatapathError::map(name)(io_error(error))
}
