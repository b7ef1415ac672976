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

use aya::maps::MapData;
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
        let failed = DatapathError::map(name);
        let sign = match (self.keys.last(), self.maps.last()) {
            (Some(key), Some(map)) => {
                let id = map.info().map_err(|error| failed(io_error(error)))?.id();
                let before = syscall::lookup_id(outer.as_fd(), key).map_err(&failed)?;
                // What is there already is no sign.
                (before != Some(id)).then_some((*key, id))
            }
            _ => None,
        };
        let must_wait = !self.keys.is_empty() && sign.is_none();
        let thread = {
            let outer = outer.try_clone().map_err(&failed)?;
            thread::Builder::new()
                .name("outer-map".to_owned())
                .spawn(move || self.make(&outer))
                .map_err(&failed)?
        };
        Ok(Begun {
            name,
            sign,
            must_wait,
            thread: Some(thread),
        })
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

/// A change that a thread makes. It is never left alone: what is dropped is waited for, so that nothing is
/// written into a slot that is in use again.
pub(super) struct Begun {
    name: &'static str,
    /// The element that is written last, and the id of the map that it will be.
    sign: Option<(SlotKey, u32)>,
    /// There is something to see, but no sign of it.
    must_wait: bool,
    thread: Option<JoinHandle<Result<(), DatapathError>>>,
}

impl Begun {
    /// Waits until programs see the whole change of the map `outer`. What is left to do is in the answer.
    pub(super) fn seen(mut self, outer: &OwnedFd) -> Result<Option<Self>, DatapathError> {
        if self.must_wait {
            return self.end().map(|()| None);
        }
        let Some((key, wanted)) = self.sign else {
            return Ok(Some(self));
        };
        while self
            .thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
        {
            let found = syscall::lookup_id(outer.as_fd(), &key);
            if found.map_err(DatapathError::map(self.name))? == Some(wanted) {
                return Ok(Some(self));
            }
            thread::sleep(LOOK);
        }
        self.end().map(|()| None)
    }

    /// Waits until the change is made and the programs that ran have ended.
    pub(super) fn end(&mut self) -> Result<(), DatapathError> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        thread
            .join()
            .map_err(|_| DatapathError::Missing("a thread that writes maps"))?
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "a policy that is not to come into force");
        }
    }
}
