//! A process in a network namespace of its own, for tests.

use std::{
    error::Error,
    io,
    path::PathBuf,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use super::{Namespace, NamespaceId, inside};

/// The process and with it the namespace end when this is dropped.
pub struct Guest(Child);

impl Guest {
    /// Needs root.
    pub fn start() -> Result<Self, Box<dyn Error>> {
        let child = Command::new("unshare")
            .args(["--net", "sleep", "60"])
            .spawn()?;
        let guest = Self(child);
        let own = Namespace::own()?.id;
        let end = Instant::now() + Duration::from_secs(10);
        while guest.id()? == own {
            if Instant::now() > end {
                return Err("the guest does not leave the namespace".into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        guest.run("ip link set lo up")?;
        Ok(guest)
    }

    pub fn id(&self) -> io::Result<NamespaceId> {
        Ok(self.namespace()?.id)
    }

    fn namespace(&self) -> io::Result<Namespace> {
        Namespace::open(&PathBuf::from(format!("/proc/{}/ns/net", self.0.id())))
    }

    /// Runs `work` inside.
    pub fn inside<T: Send>(&self, mut work: impl FnMut() -> io::Result<T> + Send) -> io::Result<T> {
        let results = inside(&[self.namespace()?], |_| work())?;
        results.into_iter().next().ok_or(io::ErrorKind::NotFound)?
    }

    /// Runs a shell command inside.
    pub fn run(&self, command: &str) -> io::Result<()> {
        let status = self.inside(|| Command::new("sh").args(["-c", command]).status())?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("{command}: {status}")))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
