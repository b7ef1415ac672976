//! Changes of the outer maps, whose elements are maps.
//!
//! When such a map changes, the kernel waits until the programs that run have ended
//! (`maybe_wait_bpf_programs`, `kernel/bpf/syscall.c`): milliseconds in which the change is long visible.
//! So a thread makes the change, the caller goes on as soon as it sees it, and the wait ends behind it.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    thread::{self, JoinHandle},
    time::Duration,
};

use aya::maps::{HashOfMaps, MapData, MapError};
use ringfence_common::abi::SlotKey;

use super::super::{
    error::{DatapathError, io_error},
    maps::full,
    syscall,
};

/// How often a change is looked for.
const LOOK: Duration = Duration::from_micros(20);

/// A change of one outer map.
pub(super) struct Change {
    name: &'static str,
    keys: Vec<SlotKey>,
    maps: Vec<MapData>,
    gone: Vec<SlotKey>,
}

impl Change {
    /// One that removes `gone`, of which a program that reads the slot has no use.
    pub(super) const fn new(name: &'static str, gone: Vec<SlotKey>) -> Self {
        Self {
            name,
            keys: Vec::new(),
            maps: Vec::new(),
            gone,
        }
    }

    pub(super) fn add(&mut self, key: SlotKey, map: MapData) {
        self.keys.push(key);
        self.maps.push(map);
    }

    /// Starts the change of the map `outer`.
    pub(super) fn start(self, outer: &OwnedFd) -> Result<Begun, DatapathError> {
        let name = self.name;
        let last = match (self.keys.last(), self.maps.last()) {
            (Some(key), Some(map)) => Some((*key, id(map, name)?)),
            _ => None,
        };
        let outer = outer.try_clone().map_err(DatapathError::map(name))?;
        let thread = thread::Builder::new()
            .name("outer-map".to_owned())
            .spawn(move || self.make(&outer))
            .map_err(DatapathError::map(name))?;
        Ok(Begun { name, last, thread })
    }

    /// Makes the change and waits for the programs that run. Where there is no room the old go first.
    fn make(&self, outer: &OwnedFd) -> Result<(), DatapathError> {
        let fds: Vec<i32> = self
            .maps
            .iter()
            .map(|map| map.fd().as_fd().as_raw_fd())
            .collect();
        let update = || {
            syscall::update_batch(outer.as_fd(), &self.keys, &fds)
                .map_err(|error| full(error, self.name, self.keys.len()))
        };
        let remove = || {
            syscall::delete_batch(outer.as_fd(), &self.gone).map_err(DatapathError::map(self.name))
        };
        match update() {
            Err(DatapathError::Full { .. }) if !self.gone.is_empty() => {
                remove().and_then(|()| update())
            }
            Err(error) => Err(error),
            Ok(()) => remove(),
        }
    }
}

/// A change that a thread makes.
pub(super) struct Begun {
    name: &'static str,
    /// The element that is written last, and the map that it will be.
    last: Option<(SlotKey, u32)>,
    thread: JoinHandle<Result<(), DatapathError>>,
}

impl Begun {
    /// Waits until programs see the whole change. What is left to do is in the answer.
    pub(super) fn seen(
        self,
        outer: &HashOfMaps<MapData, SlotKey>,
    ) -> Result<Option<Self>, DatapathError> {
        let Some((key, wanted)) = self.last else {
            return Ok(Some(self));
        };
        while !self.thread.is_finished() {
            match outer.get(&key, 0) {
                Ok(map) if id(&map, self.name)? == wanted => return Ok(Some(self)),
                Ok(_) | Err(MapError::KeyNotFound) => thread::sleep(LOOK),
                Err(error) => return Err(DatapathError::map(self.name)(io_error(error))),
            }
        }
        self.end().map(|()| None)
    }

    /// Waits until the change is made and the programs that ran have ended.
    pub(super) fn end(self) -> Result<(), DatapathError> {
        self.thread
            .join()
            .map_err(|_| DatapathError::Missing("a thread that writes maps"))?
    }
}

fn id(map: &MapData, name: &'static str) -> Result<u32, DatapathError> {
    map.info()
        .map(|info| info.id())
        .map_err(|error| DatapathError::map(name)(io_error(error)))
}
