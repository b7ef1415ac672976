//! One inotify instance for the cgroup tree and for the directories of executables.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};

use super::IdentityError;

/// How often the kernel's queue is read for one batch: more than it holds, but not as fast as others can fill it.
const MOST_READS: usize = 64;

/// What happened since the last batch, coalesced: names to look at again, not a history.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Names per watched directory.
    pub dirty: HashMap<WatchDescriptor, BTreeSet<OsString>>,
    /// Watches that the kernel dropped, mostly because the directory is gone.
    pub dropped: Vec<WatchDescriptor>,
    /// Events were lost: everything must be looked at again.
    pub overflow: bool,
    /// There may be more to read.
    pub more: bool,
}

/// The inotify instance.
pub(super) struct Watcher {
    inotify: Inotify,
    buffer: Vec<u8>,
}

impl Watcher {
    /// Opens a nonblocking instance.
    pub fn new() -> Result<Self, IdentityError> {
        Ok(Self {
            inotify: Inotify::init().map_err(IdentityError::Inotify)?,
            buffer: vec![0; 65_536],
        })
    }

    /// Watches an open directory for entries that come and go. Through the descriptor, so that no
    /// path is too long and no other directory takes its place.
    pub fn add(&self, directory: impl AsFd, extra: WatchMask) -> io::Result<WatchDescriptor> {
        let path = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
        let mask = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVED_FROM
            | WatchMask::MOVED_TO
            | WatchMask::ONLYDIR
            | extra;
        self.inotify.watches().add(path, mask)
    }

    /// Ends a watch. The kernel may have ended it already.
    pub fn remove(&self, watch: WatchDescriptor) {
        drop(self.inotify.watches().remove(watch));
    }

    /// Reads until nothing is left, without waiting, or [`MOST_READS`] times.
    pub fn drain(&mut self) -> Batch {
        let mut batch = Batch {
            more: true,
            ..Batch::default()
        };
        for _ in 0..MOST_READS {
            let events = match self.inotify.read_events(&mut self.buffer) {
                Ok(events) => events,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    batch.more = false;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::warn!(%error, "inotify cannot be read: rescanning");
                    batch.overflow = true;
                    batch.more = false;
                    break;
                }
            };
            for event in events {
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    batch.overflow = true;
                } else if event.mask.contains(EventMask::IGNORED) {
                    batch.dropped.push(event.wd);
                } else {
                    let name = event.name.unwrap_or_default().to_owned();
                    let _ = batch.dirty.entry(event.wd).or_default().insert(name);
                }
            }
        }
        batch
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
