//! Reads the per-CPU counters.

use std::path::Path;

use aya::maps::{MapData, PerCpuArray};
use ringfence_common::abi::{count, names, reason};

use super::{error::DatapathError, maps};

/// Counters of the kernel programs.
pub struct Counts {
    counts: PerCpuArray<MapData, u64>,
    reasons: PerCpuArray<MapData, u64>,
}

impl Counts {
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn open(directory: &Path) -> Result<Self, DatapathError> {
        Ok(Self {
            counts: maps::open(directory, names::COUNTS)?,
            reasons: maps::open(directory, names::REASONS)?,
        })
    }

    /// Values of `COUNTS`, summed over the CPUs, in the order of `Count`.
    #[must_use]
    pub fn counts(&self) -> Vec<u64> {
        sums(&self.counts, count::LEN)
    }

    /// Values of `REASONS`, summed over the CPUs, by `reason::slot`.
    #[must_use]
    pub fn reasons(&self) -> Vec<u64> {
        sums(&self.reasons, 4 * reason::SLOTS)
    }
}

/// A counter that can't be read is shown as 0.
fn sums(map: &PerCpuArray<MapData, u64>, length: u32) -> Vec<u64> {
    (0..length)
        .map(|index| map.get(&index, 0).map_or(0, |values| values.iter().sum()))
        .collect()
}
