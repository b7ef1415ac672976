//! Reads the event ring.

use std::{io, path::Path};

use aya::maps::{MapData, RingBuf};
use ringfence_common::abi::{Event, names};
use tokio::sync::watch;

use super::{
    error::DatapathError,
    maps,
    ring::{self, Left, Ring},
};
use crate::{
    flow::{self, Names, ProcessBook},
    identity::Inventory,
};

/// The reading end of `EVENTS`. The ring is pinned: what was not read before the agent died is read
/// after its restart.
pub struct Events {
    ring: Ring<Event>,
    looks: usize,
}

impl Events {
    /// Opens the pinned ring.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn open(directory: &Path) -> Result<Self, DatapathError> {
        let ring: RingBuf<MapData> = maps::open(directory, names::EVENTS)?;
        let ring = Ring::new(ring).map_err(DatapathError::map(names::EVENTS))?;
        let room = maps::entries(directory, names::EVENTS)? as usize / size_of::<Event>();
        Ok(Self {
            ring,
            looks: room / ring::BATCH + 1,
        })
    }

    /// Waits for a record that is urgent: of the others the programs tell nobody.
    ///
    /// # Errors
    /// The kernel's, when the ring can't be polled.
    pub async fn woken(&mut self) -> io::Result<()> {
        self.ring.woken().await
    }

    /// How many [`Self::take`] take all that the ring can hold.
    #[must_use]
    pub const fn looks(&self) -> usize {
        self.looks
    }

    /// Appends the records that are there to `into`.
    pub fn take(&mut self, into: &mut Vec<Event>) -> Left {
        self.ring.take(into)
    }
}

/// An entrance for the fuzz target: records through to the message that the interface sends.
pub(crate) fn fuzz(bytes: &[u8]) {
    let names = Names::default();
    let (_sender, cgroups) = watch::channel(Inventory::default());
    let mut processes = ProcessBook::new(cgroups);
    for event in bytes
        .chunks(size_of::<Event>())
        .filter_map(ring::decode::<Event>)
    {
        if let Some(record) = flow::record(&event, &names, &mut processes, 0) {
            let _message = record.to_proto(0);
        }
    }
}
