//! The reading end of a ring buffer of records of one type.

use std::{io, marker::PhantomData};

use aya::{
    Pod,
    maps::{MapData, RingBuf},
};
use tokio::io::unix::AsyncFd;

use super::poll;

/// Records taken at one wake-up at most, so that other work gets its turn.
pub const BATCH: usize = 1024;

/// How a look at a ring left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// There was nothing.
    Nothing,
    /// All was taken.
    Empty,
    /// There may be more.
    Records,
}

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
        // Take what is there first: the descriptor tells of new records only.
        while self.take(into) == Left::Nothing {
            self.woken().await?;
        }
        Ok(())
    }

    /// Waits until a program wakes whoever waits.
    ///
    /// # Errors
    /// The kernel's, when the ring can't be polled.
    pub async fn woken(&mut self) -> io::Result<()> {
        // Cleared before the caller looks: a record that comes after that sets it again.
        self.ring.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// Appends the records that are there to `into`.
    pub fn take(&mut self, into: &mut Vec<T>) -> Left {
        let ring = self.ring.get_mut();
        let before = into.len();
        while into.len() - before < BATCH {
            let Some(item) = ring.next() else {
                return if into.len() == before {
                    Left::Nothing
                } else {
                    Left::Empty
                };
            };
            if let Some(record) = decode(&item) {
                into.push(record);
            }
        }
        Left::Records
    }
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
