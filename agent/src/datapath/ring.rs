//! The reading end of a ring buffer of records of one type.

use std::{io, marker::PhantomData};

use aya::{
    Pod,
    maps::{MapData, RingBuf},
};
use tokio::io::unix::AsyncFd;

use super::poll;

/// Records taken at one wake-up at most, so that other work gets its turn.
const BATCH: usize = 1024;

/// The reading end.
pub struct Ring<T> {
    ring: AsyncFd<RingBuf<MapData>>,
    of: PhantomData<T>,
}

impl<T: Pod> Ring<T> {
    /// Registers the ring with the runtime.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        Ok(Self {
            ring: poll::register(ring)?,
            of: PhantomData,
        })
    }

    /// Waits for records and appends them to `into`.
    ///
    /// # Errors
    /// The kernel's, when the ring can't be polled.
    pub async fn read(&mut self, into: &mut Vec<T>) -> io::Result<()> {
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

fn take<T: Pod>(ring: &mut RingBuf<MapData>, into: &mut Vec<T>) -> bool {
    let before = into.len();
    while into.len() - before < BATCH {
        let Some(item) = ring.next() else { break };
        if let Some(record) = decode(&item) {
            into.push(record);
        }
    }
    into.len() > before
}

/// A record of another size is not ours: it is left out.
pub fn decode<T: Pod>(bytes: &[u8]) -> Option<T> {
    if bytes.len() != size_of::<T>() {
        return None;
    }
    // SAFETY: as many bytes as a `T` has are readable, and every bit pattern is a valid one (`Pod`); the read
    // does not need alignment.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
