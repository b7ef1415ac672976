//! Sockets that exist already: gives each an owner, so that its next packet is judged like any other.

use std::{
    collections::HashSet,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use aya::maps::{MapData, SkStorage};
use ringfence_common::abi::{
    Decision, Direction, ExecutableKey, Owner, SocketState, identity, names,
    socket::{PASSIVE, PHASE_NEW},
};

use super::{
    error::DatapathError,
    fds::{self, SocketFacts},
    maps,
};
use crate::identity::{
    Groups, Resolver,
    adopt::{ProcessSockets, credentials},
};

const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;

/// The pinned socket storage.
pub struct Sockets {
    storage: SkStorage<MapData, SocketState>,
}

impl Sockets {
    /// Opens the pinned map.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn open(directory: &Path) -> Result<Self, DatapathError> {
        Ok(Self {
            storage: maps::open(directory, names::SOCKETS)?,
        })
    }

    /// Writes the owner of every internet socket in the guarded tree that has none, or another one
    /// than its process stands for now. Returns how many were written.
    pub fn adopt(&mut self, resolver: &Resolver, processes: Vec<ProcessSockets>) -> usize {
        let mut found = Vec::new();
        for process in processes {
            let owner = Owner {
                identity: resolver.resolve(
                    process.cgroup_id,
                    process.exe.as_ref(),
                    process.uid,
                    &process.groups,
                ),
                class: resolver.class_of(process.cgroup_id, &process.groups),
                cgroup: process.cgroup_id,
                executable: process.exe.unwrap_or_default(),
                tgid: process.tgid,
                uid: process.uid,
                comm: process.comm,
                ..Owner::default()
            };
            for (fd, _) in &process.fds {
                // A socket that is closed meanwhile needs no owner.
                let Ok(socket) = fds::socket_of(process.tgid, *fd) else {
                    continue;
                };
                let Ok(facts) = SocketFacts::of(socket.as_fd()) else {
                    continue;
                };
                if facts.family == AF_INET || facts.family == AF_INET6 {
                    found.push((socket, facts, owner));
                }
            }
        }
        let listening: HashSet<(u64, u16)> = found
            .iter()
            .filter(|(_, facts, _)| facts.listening)
            .filter_map(|(_, facts, _)| facts.local.map(|(_, port)| (facts.netns, port)))
            .collect();
        found
            .into_iter()
            .filter(|(socket, facts, owner)| {
                let owner = Owner {
                    netns: facts.netns,
                    ..*owner
                };
                self.write(resolver, socket, facts, owner, &listening)
            })
            .count()
    }

    fn write(
        &mut self,
        resolver: &Resolver,
        socket: &OwnedFd,
        facts: &SocketFacts,
        owner: Owner,
        listening: &HashSet<(u64, u16)>,
    ) -> bool {
        let before = self.storage.get(socket, 0).ok();
        // A socket that has an owner keeps it, whoever holds a descriptor now; only what the owner stands
        // for can have changed.
        let owner = match before.map(|before| before.owner) {
            Some(known) if known.identity == identity::AGENT => return false,
            // Found, if only to be nobody in particular.
            Some(known) if known.cgroup != 0 => present(resolver, known, &owner),
            _ => owner,
        };
        let same = |before: SocketState| {
            (before.owner.identity, before.owner.class) == (owner.identity, owner.class)
        };
        if before.is_some_and(same) {
            return false;
        }
        let inbound = facts
            .local
            .is_some_and(|(_, port)| listening.contains(&(facts.netns, port)));
        let state = match before {
            // A known socket whose process is someone else now: the next packet is judged anew.
            Some(before) => SocketState {
                owner,
                decision: Decision {
                    generation: 0,
                    ..before.decision
                },
                ..before
            },
            None => SocketState {
                owner,
                decision: Decision {
                    direction: if inbound {
                        Direction::Ingress
                    } else {
                        Direction::Egress
                    } as u8,
                    ..Decision::default()
                },
                phase: PHASE_NEW,
                marks: if inbound { PASSIVE } else { 0 },
                ..SocketState::default()
            },
        };
        self.storage.insert(socket, state, 0).is_ok()
    }
}

/// What the known owner of a socket stands for now; `holder` is a process that has a descriptor of it.
fn present(resolver: &Resolver, known: Owner, holder: &Owner) -> Owner {
    let (then, now) = (&known.executable, &holder.executable);
    let same_file = (then.device, then.inode) == (now.device, now.inode);
    // Another program that the process has executed since is not what opened the socket. The same file
    // under a newer change time is, and so, for want of better, is any where none was looked at.
    let is_the_same = known.tgid == holder.tgid && (same_file || *then == ExecutableKey::default());
    let executable = if is_the_same { *now } else { *then };
    let key = (executable != ExecutableKey::default()).then_some(executable);
    let groups = groups_of(resolver, &known);
    let found = resolver.resolve(known.cgroup, key.as_ref(), known.uid, &groups);
    // What can't be judged any more (its cgroup is gone, or nobody runs its executable) decides nothing.
    let cannot_tell = found == identity::PENDING || !resolver.is_there(known.cgroup);
    if cannot_tell && known.identity != identity::PENDING {
        return known;
    }
    Owner {
        identity: found,
        class: resolver.class_of(known.cgroup, &groups),
        executable,
        ..known
    }
}

/// The groups that the kernel noted of an owner, or where others are asked for now, those that its process
/// has now, if it is still there.
fn groups_of(resolver: &Resolver, owner: &Owner) -> Groups {
    let noted = Groups::Noted(owner.class);
    if resolver.knows(owner.cgroup, &noted) {
        return noted;
    }
    match credentials(owner.tgid) {
        Some((uid, groups)) if uid == owner.uid => groups,
        _ => noted,
    }
}
