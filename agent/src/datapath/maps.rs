//! Opens pinned maps. What is pinned decides about sizes, not what this agent would have made.

use std::{io, os::fd::OwnedFd, path::Path};

use aya::maps::{Map, MapData, MapError};

use super::{
    error::{DatapathError, io_error},
    syscall,
};

/// The pinned map `name`, typed.
pub(super) fn open<T>(directory: &Path, name: &'static str) -> Result<T, DatapathError>
where
    T: TryFrom<Map, Error = MapError>,
{
    MapData::from_pin(directory.join(name))
        .and_then(Map::from_map_data)
        .and_then(T::try_from)
        .map_err(|error| DatapathError::map(name)(io_error(error)))
}

/// How many entries the pinned map `name` was made for; bytes for a ring buffer.
pub(super) fn entries(directory: &Path, name: &'static str) -> Result<u32, DatapathError> {
    MapData::from_pin(directory.join(name))
        .and_then(|map| map.info())
        .map(|info| info.max_entries())
        .map_err(|error| DatapathError::map(name)(io_error(error)))
}

/// A descriptor of the pinned map `name`.
pub(super) fn descriptor(directory: &Path, name: &'static str) -> Result<OwnedFd, DatapathError> {
    syscall::open_pin(&directory.join(name)).map_err(DatapathError::map(name))
}

/// Turns "no such key" into success.
pub(super) fn absent_is_fine(
    result: Result<(), MapError>,
    name: &'static str,
) -> Result<(), DatapathError> {
    match result.map_err(io_error) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DatapathError::Map {
            name,
            source: error,
        }),
        _ => Ok(()),
    }
}

/// Says which map is too small where that is what the kernel refused.
pub(super) fn full(error: io::Error, name: &'static str, count: usize) -> DatapathError {
    match error.raw_os_error() {
        Some(libc::E2BIG | libc::ENOSPC) => DatapathError::Full { name, count },
        _ => DatapathError::Map {
            name,
            source: error,
        },
    }
}
