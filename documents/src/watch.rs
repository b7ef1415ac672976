//! Tells when a directory may have changed.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_stream::StreamExt as _;

/// An editor writes several times: wait until it has been quiet for this long …
const QUIET: Duration = Duration::from_millis(30);
/// … but not longer than this.
const LONGEST: Duration = Duration::from_secs(1);
/// Catches what inotify cannot see: files behind symbolic links, network file systems.
const POLL: Duration = Duration::from_secs(30);
/// While there is no directory to watch.
const POLL_UNWATCHED: Duration = Duration::from_secs(1);

/// A watch on one path, which may be replaced, lead elsewhere, or not be there yet.
pub struct Watch {
    events: EventStream<[u8; 4096]>,
    directory: PathBuf,
    /// The watch on what the path leads to.
    own: Option<WatchDescriptor>,
    /// The watch on the directory that holds the name, and the name.
    above: Option<(WatchDescriptor, OsString)>,
    /// Changes that are under way.
    burst: Option<Burst>,
    /// When the directory is read without a reason.
    poll: Instant,
    failed: bool,
}

/// Changes in quick succession.
struct Burst {
    deadline: Instant,
    quiet: Instant,
}

impl Watch {
    /// Watches from now on: read the directory after this.
    ///
    /// # Errors
    /// The kernel gives no inotify instance.
    pub fn new(directory: &Path) -> io::Result<Self> {
        let events = Inotify::init()?.into_event_stream([0; 4096])?;
        let mut watch = Self {
            events,
            directory: directory.to_owned(),
            own: None,
            above: None,
            burst: None,
            poll: Instant::now(),
            failed: false,
        };
        watch.arm();
        Ok(watch)
    }

    /// Returns after a burst of changes, and from time to time without any; the directory must then be
    /// read. Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        loop {
            let wake = match &self.burst {
                Some(burst) => burst.deadline.min(burst.quiet),
                None => self.poll,
            };
            if self.failed {
                sleep_until(wake).await;
                break;
            }
            match timeout_at(wake, self.events.next()).await {
                Ok(Some(Ok(event))) => self.note(&event),
                Ok(Some(Err(error))) => {
                    tracing::error!(%error, "inotify failed; the policy directory is polled");
                    self.failed = true;
                }
                Ok(None) => self.failed = true,
                Err(_) => break,
            }
        }
        self.burst = None;
        // First the watch, then the files: nothing is missed between the two.
        self.arm();
    }

    /// Watches the directory that now has the name, and the name itself.
    fn arm(&mut self) {
        let inside = WatchMask::CREATE
            | WatchMask::MODIFY
            | WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::MOVE
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let own = self.events.watches().add(&self.directory, inside).ok();
        let above = self.watch_name();
        let before = [
            std::mem::replace(&mut self.own, own),
            std::mem::replace(&mut self.above, above).map(|(above, _)| above),
        ];
        for stale in before.into_iter().flatten() {
            if !self.watches(&stale) {
                // The kernel removed it already if that directory is gone.
                let _ = self.events.watches().remove(stale);
            }
        }
        let watched = self.own.is_some() && !self.failed;
        self.poll = Instant::now() + if watched { POLL } else { POLL_UNWATCHED };
    }

    /// A symbolic link that leads elsewhere changes only in the directory that holds it.
    fn watch_name(&self) -> Option<(WatchDescriptor, OsString)> {
        let name = self.directory.file_name()?;
        let above = match self.directory.parent()? {
            path if path.as_os_str().is_empty() => Path::new("."),
            path => path,
        };
        let mask = WatchMask::CREATE | WatchMask::MOVE | WatchMask::DELETE | WatchMask::ONLYDIR;
        let descriptor = self.events.watches().add(above, mask).ok()?;
        Some((descriptor, name.to_owned()))
    }

    fn watches(&self, watch: &WatchDescriptor) -> bool {
        self.own.as_ref() == Some(watch)
            || self.above.as_ref().is_some_and(|(above, _)| above == watch)
    }

    /// Takes an event into the burst; which file it was does not matter, since the directory is read as
    /// a whole.
    fn note(&mut self, event: &EventOwned) {
        if let Some((above, name)) = &self.above
            && *above == event.wd
            && event.name.as_deref() != Some(OsStr::new(name))
        {
            return;
        }
        // The kernel's answer to a watch that was dropped.
        if event.mask.contains(EventMask::IGNORED) && !self.watches(&event.wd) {
            return;
        }
        let now = Instant::now();
        // A file that was truncated and is not closed yet must not pass for an empty one.
        let being_written = event.mask.contains(EventMask::MODIFY);
        let quiet = now + if being_written { LONGEST } else { QUIET };
        let deadline = self.burst.as_ref().map_or(now + LONGEST, |it| it.deadline);
        self.burst = Some(Burst { deadline, quiet });
    }
}
