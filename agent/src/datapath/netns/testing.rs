//! A process in a network namespace of its own, for tests.

use std::{
    error::Error,
    fs, io,
    path::PathBuf,
    process::{self, Child, Command},
    thread,
    time::{Duration, Instant},
};

use super::{Namespace, NamespaceId, inside};

/// The process and with it the namespace end when this is dropped.
pub struct Guest(Ended);

/// A process that ends when this is dropped.
struct Ended(Child);

impl Guest {
    /// Needs root.
    pub fn start() -> Result<Self, Box<dyn Error>> {
        Self::by(&["unshare", "--net", "sleep", "60"])
    }

    /// In a user namespace that this user has made.
    pub fn of_user(uid: u32) -> Result<Self, Box<dyn Error>> {
        let uid = uid.to_string();
        let user = [
            "setpriv",
            "--clear-groups",
            "--regid",
            &uid,
            "--reuid",
            &uid,
        ];
        let namespaces = ["unshare", "--user", "--map-root-user", "--net"];
        Self::by(&[&user[..], &namespaces, &["sleep", "60"]].concat())
    }

    /// In a user namespace that `maker` has made within one of `uid`, whom that id was given.
    pub fn nested(uid: u32, maker: u32) -> Result<Self, Box<dyn Error>> {
        let id = uid.to_string();
        let user = ["setpriv", "--clear-groups", "--regid", &id, "--reuid", &id];
        let outer = Ended(spawn(
            &[&user[..], &["unshare", "--user", "sleep", "60"]].concat(),
        )?);
        let place = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/user"));
        let (own, pid) = (place(process::id())?, outer.0.id());
        until("no user namespace", || Ok(place(pid)? != own))?;
        for map in ["uid_map", "gid_map"] {
            fs::write(
                format!("/proc/{pid}/{map}"),
                format!("0 {uid} 1\n7 {maker} 1\n"),
            )?;
        }
        let target = pid.to_string();
        let enter = [
            "nsenter", "--user", "--target", &target, "-S", "7", "-G", "7",
        ];
        let namespaces = ["unshare", "--user", "--map-root-user", "--net"];
        Self::by(&[&enter[..], &namespaces, &["sleep", "60"]].concat())
    }

    fn by(command: &[&str]) -> Result<Self, Box<dyn Error>> {
        let guest = Self(Ended(spawn(command)?));
        let own = Namespace::own()?.id;
        until("the guest does not leave the namespace", || {
            Ok(guest.id()? != own)
        })?;
        guest.run("ip link set lo up")?;
        Ok(guest)
    }

    pub fn owner(&self) -> io::Result<Option<u32>> {
        self.namespace()?.foreign_owner()
    }

    pub fn id(&self) -> io::Result<NamespaceId> {
        Ok(self.namespace()?.id)
    }

    fn namespace(&self) -> io::Result<Namespace> {
        Namespace::open(&PathBuf::from(format!("/proc/{}/ns/net", self.0.0.id())))
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

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(command: &[&str]) -> Result<Child, Box<dyn Error>> {
    let (program, arguments) = command.split_first().ok_or("no command")?;
    Ok(Command::new(program).args(arguments).spawn()?)
}

fn until(not: &str, is: impl Fn() -> io::Result<bool>) -> Result<(), Box<dyn Error>> {
    let end = Instant::now() + Duration::from_secs(10);
    while !is()? {
        if Instant::now() > end {
            return Err(not.into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
