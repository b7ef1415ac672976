//! Owners of UDP sockets, which the kernel does not tell: `udp_diag` leaves out the storage of a socket.
//!
//! Where one cgroup is one workload, the socket's cgroup is answer enough. Where processes of a cgroup are
//! told apart, its processes are searched for the socket, once for each socket, and the storage is read
//! through a copy of the descriptor. What the search does not find (a socket that a process of another
//! cgroup holds) is looked for again from time to time.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use ringfence_common::abi::{Owner, tuple::UDP};

use crate::{
    datapath::survey::{FoundSocket, Survey},
    identity::{Tables, live},
};

/// When a socket that was not found is looked for again.
const AGAIN: Duration = Duration::from_secs(30);

/// What was found of each socket that is there, by cookie.
#[derive(Default)]
pub(super) struct Unowned(HashMap<u64, Known>);

struct Known {
    owner: Option<Owner>,
    asked: Instant,
}

impl Unowned {
    /// Gives the sockets that need one an owner, as the storage had it when they were found. `place` is the directory of a
    /// cgroup.
    pub fn fill(
        &mut self,
        sockets: &mut [FoundSocket],
        tables: &Tables,
        survey: &Survey,
        place: impl Fn(u64) -> Option<PathBuf>,
    ) {
        let differs = |cgroup: &u64| tables.cgroups.get(cgroup).is_some_and(|it| it.class != 0);
        let needs = |socket: &FoundSocket| {
            socket.protocol == UDP
                && socket.receives
                && socket.owner.is_none()
                && differs(&socket.cgroup)
        };
        // By cgroup: cookie of each socket by its inode number.
        let mut missing: BTreeMap<u64, HashMap<u64, u64>> = BTreeMap::new();
        let mut known = HashMap::new();
        for socket in sockets.iter().filter(|socket| needs(socket)) {
            match self.0.remove(&socket.cookie) {
                Some(found) if found.owner.is_some() || found.asked.elapsed() < AGAIN => {
                    let _ = known.insert(socket.cookie, found);
                }
                _ => {
                    let cgroup = missing.entry(socket.cgroup).or_default();
                    let _ = cgroup.insert(socket.inode, socket.cookie);
                }
            }
        }
        // Those that are gone are forgotten.
        self.0 = known;
        for (cgroup, sockets) in missing {
            self.search(place(cgroup), sockets, survey);
        }
        for socket in sockets.iter_mut().filter(|socket| needs(socket)) {
            socket.owner = self.0.get(&socket.cookie).and_then(|known| known.owner);
        }
    }

    fn search(&mut self, place: Option<PathBuf>, sockets: HashMap<u64, u64>, survey: &Survey) {
        let mut left = sockets;
        let listed = place.and_then(|place| fs::read_to_string(place.join("cgroup.procs")).ok());
        let listed = listed.unwrap_or_default();
        for tgid in listed.lines().filter_map(|line| line.parse().ok()) {
            if left.is_empty() {
                return;
            }
            for (fd, inode) in live::sockets_of(tgid) {
                let Some(cookie) = left.get(&inode).copied() else {
                    continue;
                };
                if let Some(owner) = survey.owner(tgid, fd, cookie) {
                    let _ = left.remove(&inode);
                    self.note(cookie, Some(owner));
                }
            }
        }
        for cookie in left.into_values() {
            self.note(cookie, None);
        }
    }

    fn note(&mut self, cookie: u64, owner: Option<Owner>) {
        let asked = Instant::now();
        let _ = self.0.insert(cookie, Known { owner, asked });
    }
}
