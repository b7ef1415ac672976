//! Reads the event ring.

use std::{io, path::Path};

use aya::maps::{MapData, RingBuf};
use ringfence_common::abi::{Event, names};
use ringfence_policy::{
    compile::Compiled,
    model::{Identities, PolicySet},
};
use tokio::{io::unix::AsyncFd, sync::watch};

use super::{error::DatapathError, maps, poll};
use crate::{
    flow::{self, Names, ProcessBook},
    identity::Inventory,
};

/// Records taken at one wake-up at most, so that other work gets its turn.
const BATCH: usize = 1024;

/// The reading end of `EVENTS`. The ring is pinned: what was not read before the agent died is read
/// after its restart.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Events {
    /// Opens the pinned ring.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn open(directory: &Path) -> Result<Self, DatapathError> {
        let ring: RingBuf<MapData> = maps::open(directory, names::EVENTS)?;
        let ring = poll::register(ring).map_err(DatapathError::map(names::EVENTS))?;
        Ok(Self { ring })
    }

    /// Waits for records and appends them to `into`.
    ///
    /// # Errors
    /// The kernel's, when the ring can't be polled.
    pub async fn read(&mut self, into: &mut Vec<Event>) -> io::Result<()> {
        loop {
            // Take what is there first: the descriptor tells of new records only.
            if take(self.ring.get_mut(), into) {
                return Ok(());
            }
            let mut guard = self.ring.readable_mut().await?;
            if take(guard.get_inner_mut(), into) {
                return Ok(());
            }
            guard.clear_ready();
            // A record may have come between the last look and the clearing.
            if take(guard.get_inner_mut(), into) {
                return Ok(());
            }
        }
    }
}

fn take(ring: &mut RingBuf<MapData>, into: &mut Vec<Event>) -> bool {
    let before = into.len();
    while into.len() - before < BATCH {
        let Some(item) = ring.next() else { break };
        if let Some(event) = decode(&item) {
            into.push(event);
        }
    }
    into.len() > before
}

/// An entrance for the fuzz target: records through to the message that the interface sends.
pub(crate) fn fuzz(bytes: &[u8]) {
    let names = Names::new(
        &PolicySet::default(),
        &Identities::new(),
        &Compiled::default(),
    );
    let (_sender, cgroups) = watch::channel(Inventory::default());
    let mut processes = ProcessBook::new(cgroups);
    for event in bytes.chunks(size_of::<Event>()).filter_map(decode) {
        if let Some(record) = flow::record(&event, &names, &mut processes, 0) {
            let _message = record.to_proto(0);
        }
    }
}

/// A record of another size is not ours: it is left out.
fn decode(bytes: &[u8]) -> Option<Event> {
    if bytes.len() != size_of::<Event>() {
        return None;
    }
    // SAFETY: as many bytes as an `Event` has are readable, and every bit pattern of its integer
    // fields is valid; the read does not need alignment.
    Some(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
}
