//! Keeps frames of packet sockets from going past the cgroup hooks: a program at the egress of every device
//! in every network namespace that holds guarded processes.
//!
//! Owns those links and their pins, and the notices of devices that come. Never judges: the program does. A
//! pinned link stays in force when the agent ends and is taken over by the next one; it ends with its device.

mod link;
mod notice;
mod places;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::net::if_::if_nameindex;

pub use self::notice::Notices;
use super::{error::DatapathError, netns, syscall};
use crate::identity::adopt::Guarded;

/// Directory of the links, below that of a version.
pub(super) const DIRECTORY: &str = "frames";

/// A device of one network namespace. Its pin is called so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Device {
    /// Cookie of the namespace.
    netns: u64,
    /// Index within it.
    index: u32,
}

/// What one look at the devices came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Devices whose frames are judged.
    pub devices: usize,
    /// Links that someone else had detached and that are there again.
    pub reattached: usize,
    /// Pins that someone else had removed and that are there again.
    pub repinned: usize,
    /// Why some device or namespace is not covered.
    pub failed: Option<String>,
}

/// The links.
pub struct Frames {
    directory: PathBuf,
    program: OwnedFd,
    guarded: Guarded,
    links: BTreeMap<Device, OwnedFd>,
    notices: Notices,
}

impl Frames {
    /// Takes over what an earlier agent pinned below `directory`, with the new program behind it.
    ///
    /// # Errors
    /// [`DatapathError::Pin`] or [`DatapathError::Cgroup`].
    pub(super) fn open(
        directory: &Path,
        program: OwnedFd,
        root: &Path,
    ) -> Result<Self, DatapathError> {
        let directory = directory.join(DIRECTORY);
        let pin_error = |source| DatapathError::Pin {
            path: directory.clone(),
            source,
        };
        let guarded = Guarded::new(root).ok_or_else(|| DatapathError::Cgroup {
            path: root.to_path_buf(),
            source: io::Error::other("it is not below a visible cgroup2 mount"),
        })?;
        let mut links = BTreeMap::new();
        for (device, path) in pinned(&directory).map_err(pin_error)? {
            let link = syscall::open_pin(&path).map_err(pin_error)?;
            // A link whose device is gone can't be updated.
            if link::is_alive(link.as_fd())
                && syscall::link_update(link.as_fd(), program.as_fd()).is_ok()
            {
                let _ = links.insert(device, link);
            } else {
                fs::remove_file(&path).map_err(pin_error)?;
            }
        }
        Ok(Self {
            guarded,
            program,
            links,
            notices: Notices::new().map_err(pin_error)?,
            directory,
        })
    }

    /// Covers the devices that there are now. Blocks for as long as a walk over /proc takes.
    pub fn look(&mut self) -> Look {
        let mut look = Look::default();
        let gone = self.forget_dead();
        let mut failed = self.restore_pins(&mut look).err();
        match self.cover(&gone, &mut look) {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => failed = Some(error),
        }
        look.devices = self.links.len();
        look.failed = failed.map(|error| error.to_string());
        look
    }

    /// What is readable when devices have come or gone.
    #[must_use]
    pub fn notices(&self) -> &Notices {
        &self.notices
    }

    /// Drops the links that are attached to nothing, and their pins.
    fn forget_dead(&mut self) -> BTreeSet<Device> {
        let dead: BTreeSet<_> = self
            .links
            .iter()
            .filter(|(_, link)| !link::is_alive(link.as_fd()))
            .map(|(device, _)| *device)
            .collect();
        for device in &dead {
            let _ = self.links.remove(device);
            // It may have been removed by someone else.
            let _ = fs::remove_file(self.pin(*device));
        }
        dead
    }

    fn restore_pins(&self, look: &mut Look) -> io::Result<()> {
        for (device, link) in &self.links {
            let pin = self.pin(*device);
            if fs::symlink_metadata(&pin).is_err() {
                self.make_directory()?;
                syscall::pin(link.as_fd(), &pin)?;
                look.repinned += 1;
            }
        }
        Ok(())
    }

    /// Attaches the program where it is not; the answer says why something is not covered.
    fn cover(&mut self, gone: &BTreeSet<Device>, look: &mut Look) -> io::Result<Option<io::Error>> {
        let places = places::find(&self.guarded)?;
        self.notices.retain(&places);
        let (links, program, notices) = (&self.links, &self.program, &mut self.notices);
        let each = |place: &netns::Namespace| {
            // First: what comes from now on is noticed.
            notices.watch(place)?;
            let netns = netns::cookie()?;
            let mut new = Vec::new();
            for interface in &if_nameindex()? {
                let index = interface.index();
                let device = Device { netns, index };
                if !links.contains_key(&device) {
                    new.push((device, link::attach(program.as_fd(), index)));
                }
            }
            Ok(new)
        };
        let mut failed = None;
        for place in netns::inside(&places, each)? {
            let new = match place {
                Ok(new) => new,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            for (device, attached) in new {
                let kept = attached.and_then(|link| {
                    link.map_or(Ok(false), |link| self.keep(device, link).map(|()| true))
                });
                match kept {
                    Ok(true) => look.reattached += usize::from(gone.contains(&device)),
                    Ok(false) => {}
                    Err(error) => failed = Some(error),
                }
            }
        }
        Ok(failed)
    }

    fn keep(&mut self, device: Device, link: OwnedFd) -> io::Result<()> {
        self.make_directory()?;
        syscall::pin(link.as_fd(), &self.pin(device))?;
        let _ = self.links.insert(device, link);
        Ok(())
    }

    /// That of the version is someone else's to make.
    fn make_directory(&self) -> io::Result<()> {
        match fs::create_dir(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    fn pin(&self, device: Device) -> PathBuf {
        self.directory
            .join(format!("{}-{}", device.netns, device.index))
    }
}

/// Ends what is pinned below `directory`, the one of a version; answers how many devices that were.
pub(super) fn remove(directory: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for (_, path) in pinned(&directory.join(DIRECTORY))? {
        let link = syscall::open_pin(&path)?;
        if !link::is_one(link.as_fd()) {
            continue;
        }
        // One whose device is gone does nothing any more.
        if link::is_alive(link.as_fd()) {
            syscall::link_detach(link.as_fd())?;
        }
        fs::remove_file(&path)?;
        removed += 1;
    }
    Ok(removed)
}

/// The pins in a directory that carry the name of a device.
fn pinned(directory: &Path) -> io::Result<Vec<(Device, PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let Some(device) = device(&path) {
            found.push((device, path));
        }
    }
    Ok(found)
}

fn device(pin: &Path) -> Option<Device> {
    let (netns, index) = pin.file_name()?.to_str()?.split_once('-')?;
    Some(Device {
        netns: netns.parse().ok()?,
        index: index.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_called_as_its_device() {
        let expected = Device {
            netns: 4097,
            index: 2,
        };
        assert_eq!(device(Path::new("/pins/4097-2")), Some(expected));
        for other in ["/pins/egress", "/pins/1-", "/pins/-2", "/pins/1-2-3", "/"] {
            assert_eq!(device(Path::new(other)), None, "{other}");
        }
    }
}
