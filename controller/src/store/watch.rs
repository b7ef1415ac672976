//! Tells when a directory may have changed.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use inotify::{EventMask, EventStream, Inotify, WatchMask};
use tokio::time::{self, Instant};
use tokio_stream::StreamExt as _;

use super::StoreError;

/// An editor writes several times: wait until it has been quiet for this long …
const QUIET: Duration = Duration::from_millis(30);
/// … but not longer than this.
const LONGEST: Duration = Duration::from_secs(1);

/// A watch on one path, which may be replaced, or not be there yet.
pub(super) struct Watch {
    events: EventStream<[u8; 4096]>,
    directory: PathBuf,
}

impl Watch {
    pub(super) fn new(directory: &Path) -> Result<Self, StoreError> {
        let events = Inotify::init()
            .and_then(|inotify| inotify.into_event_stream([0; 4096]))
            .map_err(StoreError::Inotify)?;
        Ok(Self {
            events,
            directory: directory.to_owned(),
        })
    }

    /// Watches the directory that now has the name; false if there is none.
    pub(super) fn arm(&mut self) -> bool {
        let mask = WatchMask::CREATE
            | WatchMask::MODIFY
            | WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::MOVE
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        self.events.watches().add(&self.directory, mask).is_ok()
    }

    /// Returns after a burst of changes.
    pub(super) async fn changed(&mut self) {
        let mut being_written = self.event().await;
        let deadline = Instant::now() + LONGEST;
        while Instant::now() < deadline {
            // A file that was truncated and is not closed yet must not pass for an empty one.
            let quiet = if being_written { LONGEST } else { QUIET };
            match time::timeout(quiet, self.event()).await {
                Ok(event) => being_written = event,
                Err(_) => return,
            }
        }
    }

    /// Waits for an event and tells whether a writer still has the file open; which file does not
    /// matter, since the directory is read as a whole.
    async fn event(&mut self) -> bool {
        match self.events.next().await {
            Some(Ok(event)) => event.mask.contains(EventMask::MODIFY),
            Some(Err(error)) => {
                tracing::error!(%error, "inotify failed; the directory is polled");
                std::future::pending().await
            }
            None => std::future::pending().await,
        }
    }
}
