//! The policy directory: reads its documents and says when they change.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use inotify::{EventMask, Inotify, WatchMask};
use ringfence_policy::model::Document;
use tokio::io::unix::AsyncFd;

use crate::datapath::poll;

/// Files that change together are taken in together.
const SETTLE: Duration = Duration::from_millis(20);

/// Every `*.toml` file of the directory, ordered by name. A directory that does not exist holds none.
///
/// # Errors
/// One sentence naming the file or directory that can't be read.
pub fn read(directory: &Path) -> Result<Vec<Document>, String> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", directory.display())),
    };
    let mut documents = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|error| format!("{}: {error}", directory.display()))?
            .path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // Removed between listing and reading.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        documents.push(Document {
            name: path.display().to_string(),
            text,
        });
    }
    documents.sort();
    Ok(documents)
}

/// A watch on the directory; it survives that the directory goes and comes back.
#[derive(Debug)]
pub struct Watch {
    directory: PathBuf,
    inotify: Option<AsyncFd<Inotify>>,
}

impl Watch {
    /// Watches `directory`, at once or as soon as it exists.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        let mut watch = Self {
            directory: directory.to_path_buf(),
            inotify: None,
        };
        let _ = watch.retry();
        watch
    }

    /// Starts to watch a directory that could not be watched before; whether that is so now, and the
    /// documents must be read.
    pub fn retry(&mut self) -> bool {
        if self.inotify.is_some() {
            return false;
        }
        match watch(&self.directory) {
            Ok(inotify) => self.inotify = Some(inotify),
            Err(error) => tracing::debug!(%error, directory = ?self.directory, "not watched"),
        }
        self.inotify.is_some()
    }

    /// Waits for a change, and for the changes that follow at once.
    pub async fn changed(&mut self) {
        let Some(inotify) = &mut self.inotify else {
            return std::future::pending().await;
        };
        let ready = inotify.readable_mut().await;
        tokio::time::sleep(SETTLE).await;
        let mut buffer = [0; 16 << 10];
        let Ok(mut guard) = ready else {
            self.inotify = None;
            return;
        };
        guard.clear_ready();
        let mut gone = false;
        while let Ok(events) = guard.get_inner_mut().read_events(&mut buffer) {
            let mut any = false;
            for event in events {
                any = true;
                gone |= event.mask.contains(EventMask::IGNORED);
            }
            if !any {
                break;
            }
        }
        if gone {
            self.inotify = None;
        }
    }
}

fn watch(directory: &Path) -> io::Result<AsyncFd<Inotify>> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::CLOSE_WRITE
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::DELETE
        | WatchMask::ONLYDIR;
    let _ = inotify.watches().add(directory, mask)?;
    poll::register(inotify)
}
