//! Settings and the failsafe list into the maps, together with the policy that they belong to.
//!
//! Only the policy can be switched at one moment, and another agent's may be in force. So settings change
//! under a policy that means the same with those of before and those to come, and the failsafe list is
//! both lists meanwhile.

use std::{path::Path, sync::Arc};

use aya::maps::{Array, MapData};
use ringfence_common::abi::{
    FailsafeEntry, Header, Settings, names,
    rule::{ALLOW_SELF, DENY_EGRESS, DENY_INGRESS, SELECTED},
    settings::{DENY_UNSELECTED, DRAFT_MODE, MAX_FAILSAFE},
};
use ringfence_policy::compile::{Compiled, Table};

use super::{
    error::{DatapathError, io_error},
    maps,
};

/// Settings and the failsafe list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configured {
    /// Settings, with the length of the list.
    pub settings: Settings,
    /// The list; entries beyond [`MAX_FAILSAFE`] are left out (the configuration refuses them).
    pub failsafe: Vec<FailsafeEntry>,
}

impl Configured {
    /// What the maps hold.
    pub(super) fn held(directory: &Path) -> Result<Self, DatapathError> {
        let map: Array<MapData, Settings> = maps::open(directory, names::SETTINGS)?;
        let settings = map.get(&0, 0).map_err(failed(names::SETTINGS))?;
        let list: Array<MapData, FailsafeEntry> = maps::open(directory, names::FAILSAFE)?;
        let entry = |index| list.get(&index, 0).map_err(failed(names::FAILSAFE));
        let length = settings.failsafe_len.min(list.len());
        Ok(Self {
            settings,
            failsafe: (0..length).map(entry).collect::<Result<_, _>>()?,
        })
    }

    /// Whether there was an agent before.
    pub(super) const fn is_of_an_agent(&self) -> bool {
        self.settings.hold_ticks != 0
    }

    /// These settings with the entries of `next` behind their own, as far as there is room.
    pub(super) fn with_failsafe_of(&self, next: &Self) -> Self {
        let mut both = self.clone();
        both.failsafe.extend(&next.failsafe);
        both.failsafe.truncate(MAX_FAILSAFE);
        both.settings.failsafe_len = u32::try_from(both.failsafe.len()).unwrap_or(0);
        both
    }

    /// Whether both mean the same for a policy.
    pub(super) const fn judges_as(&self, other: &Self) -> bool {
        self.settings.flags == other.settings.flags
    }

    /// Whether an entry of this list is not in the other's.
    pub(super) fn lets_pass_more_than(&self, other: &Self) -> bool {
        let listed = |entry| other.failsafe.contains(entry);
        !self.failsafe.iter().all(listed)
    }

    /// Writes them: the list first, of which no program reads more than the settings say.
    pub(super) fn write(&self, directory: &Path) -> Result<(), DatapathError> {
        let entries = self.failsafe.iter().take(MAX_FAILSAFE);
        write_all(directory, names::FAILSAFE, entries)?;
        write_all(directory, names::SETTINGS, std::iter::once(&self.settings))
    }

    /// `compiled` so that it means under any settings what it means under these.
    pub(super) fn spelled_out(&self, compiled: &Compiled) -> Compiled {
        let flags = self.settings.flags;
        let each = |table: &Table| {
            if flags & DRAFT_MODE != 0 {
                return Table {
                    header: Header {
                        tiers: [0; 3],
                        enforced: SELECTED | ALLOW_SELF,
                        draft: SELECTED | ALLOW_SELF,
                    },
                    ..Table::default()
                };
            }
            let mut table = table.clone();
            for layer in [&mut table.header.enforced, &mut table.header.draft] {
                if *layer & SELECTED == 0 {
                    let denied = flags & DENY_UNSELECTED != 0;
                    *layer |= SELECTED
                        | if denied {
                            DENY_EGRESS | DENY_INGRESS
                        } else {
                            0
                        };
                }
            }
            table
        };
        let tables = compiled.tables.iter();
        Compiled {
            tables: tables
                .map(|(identity, table)| (*identity, Arc::new(each(table))))
                .collect(),
            ..compiled.clone()
        }
    }
}

fn write_all<'a, T: aya::Pod>(
    directory: &Path,
    name: &'static str,
    values: impl Iterator<Item = &'a T>,
) -> Result<(), DatapathError> {
    let mut map: Array<MapData, T> = maps::open(directory, name)?;
    for (index, value) in (0..).zip(values) {
        map.set(index, value, 0).map_err(failed(name))?;
    }
    Ok(())
}

fn failed(name: &'static str) -> impl Fn(aya::maps::MapError) -> DatapathError {
    move |error| DatapathError::map(name)(io_error(error))
}

#[cfg(test)]
mod tests {
    use ringfence_common::abi::{Direction, Verdict, rule::DENY_LISTEN};
    use ringfence_policy::explain::{Query, answer};

    use super::*;

    const UNSELECTED: u32 = 300;
    const SELECTED_ONE: u32 = 301;

    fn configured(flags: u32) -> Configured {
        Configured {
            settings: Settings {
                flags,
                hold_ticks: 1,
                ..Settings::default()
            },
            failsafe: Vec::new(),
        }
    }

    fn passes(compiled: &Compiled, local: u32, direction: Direction, flags: u32) -> bool {
        let compiled = Compiled {
            deny_unselected: flags & DENY_UNSELECTED != 0,
            ..compiled.clone()
        };
        let query = Query {
            local,
            direction,
            peer: 2,
            verified: false,
            peer_address: None,
            protocol: 6,
            port: 80,
        };
        let denied = answer(&compiled, &query, 0).enforced.verdict == Verdict::Deny;
        !denied || flags & DRAFT_MODE != 0
    }

    #[test]
    fn what_is_spelled_out_means_the_same_under_the_settings_before() {
        let table = |enforced| {
            Arc::new(Table {
                header: Header {
                    enforced,
                    draft: enforced,
                    ..Header::default()
                },
                ..Table::default()
            })
        };
        let compiled = Compiled {
            tables: [
                (UNSELECTED, table(ALLOW_SELF)),
                (SELECTED_ONE, table(SELECTED | DENY_EGRESS | DENY_LISTEN)),
            ]
            .into_iter()
            .collect(),
            ..Compiled::default()
        };
        let all = [0, DENY_UNSELECTED, DRAFT_MODE, DRAFT_MODE | DENY_UNSELECTED];
        for next in all {
            let spelled_out = configured(next).spelled_out(&compiled);
            for before in all.into_iter().filter(|before| before & DRAFT_MODE == 0) {
                for local in [UNSELECTED, SELECTED_ONE] {
                    for direction in [Direction::Egress, Direction::Ingress] {
                        assert_eq!(
                            passes(&spelled_out, local, direction, before),
                            passes(&compiled, local, direction, next),
                            "{local} {direction:?}: {before} before {next}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn both_failsafe_lists_hold_meanwhile() {
        let entry = |port| FailsafeEntry {
            first_port: port,
            last_port: port,
            ..FailsafeEntry::default()
        };
        let listed = |ports: &[u16]| Configured {
            failsafe: ports.iter().copied().map(entry).collect(),
            ..configured(0)
        };
        let both = listed(&[1, 2]).with_failsafe_of(&listed(&[3]));
        assert_eq!(both.failsafe, listed(&[1, 2, 3]).failsafe);
        assert_eq!(both.settings.failsafe_len, 3);
        for (before, next, more) in [
            (&[1, 2][..], &[1, 2][..], false),
            (&[1], &[2, 1], false),
            (&[1, 2], &[2], true),
            (&[1], &[2], true),
            (&[], &[], false),
        ] {
            let found = listed(before).lets_pass_more_than(&listed(next));
            assert_eq!(found, more, "{before:?} {next:?}");
        }
        let many: Vec<u16> = (0..20).collect();
        let both = listed(&many).with_failsafe_of(&listed(&many));
        assert_eq!(both.failsafe.len(), MAX_FAILSAFE);
    }
}
