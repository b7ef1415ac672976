//! A private podman in a sandbox, with containers that really run.
//!
//! ```text
//! let mut podman = Podman::new(sandbox);                 // own storage, own mount namespace
//! podman.import("localhost/web:1");                      // an image of busybox, if one is wanted
//! let web = podman.run("web", &Spec {
//!     labels: &[("app", "web")],
//!     below: "/machine",                                 // /machine/libpod-<id> below the guarded cgroup
//!     image: Some("localhost/web:1"),                    // else a plain root directory (`--rootfs`)
//!     ..Spec::default()
//! });
//! web.id; web.pid; web.cgroup;
//! let socket = podman.serve();                           // the Docker API; `podman.stop()` ends it
//! let outcome = podman.exec(&web, "client", &["call", "tcp", "127.0.0.1:80"]).last();
//! podman.remove(&web);
//! ```
//!
//! Containers are in the sandbox's network namespace and find its programs (copies of the traffic tool) in
//! `/programs`. podman itself runs in the cgroup `/runtime` below the guarded one, its conmon in `conmon` beside the
//! containers. Whatever still runs when the [`Podman`] is dropped is removed.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{
    Container, Running, Sandbox,
    container::{self, PROGRAMS},
    mounts::Mounts,
    poll::until,
};

/// Limits that podman would raise by itself, which takes a privilege that not every machine has.
const LIMITS: &str = "nofile=1024:1024 nproc=1024:1024";

/// What a container is made with.
#[derive(Clone, Copy, Debug)]
pub struct Spec<'a> {
    /// Its labels.
    pub labels: &'a [(&'a str, &'a str)],
    /// The cgroup below the guarded one that its cgroup is made in.
    pub below: &'a str,
    /// An image that was imported; `None` = a root directory.
    pub image: Option<&'a str>,
    /// What runs as its init process.
    pub command: &'a [&'a str],
}

impl Default for Spec<'_> {
    fn default() -> Self {
        Self {
            labels: &[],
            below: "/",
            image: None,
            command: &["/bin/sleep", "1000"],
        }
    }
}

/// A podman with its own storage.
pub struct Podman<'s> {
    sandbox: &'s Sandbox,
    mounts: Mounts,
    dir: PathBuf,
    service: Option<Child>,
}

impl<'s> Podman<'s> {
    /// Makes its storage; one for each sandbox.
    #[must_use]
    pub fn new(sandbox: &'s Sandbox) -> Self {
        let dir = sandbox.files().join("podman");
        fs::create_dir(&dir).unwrap();
        container::root(&dir.join("rootfs"));
        let limits: Vec<_> = LIMITS.split(' ').collect();
        let tmp = dir.join("tmp");
        let tmp = tmp.display();
        let configuration = format!(
            "[containers]\ndefault_ulimits = {limits:?}\npids_limit = 0\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\nevents_logger = \"none\"\ntmp_dir = \"{tmp}\"\n"
        );
        fs::write(dir.join("containers.conf"), configuration).unwrap();
        Self {
            sandbox,
            mounts: Mounts::new(),
            dir,
            service: None,
        }
    }

    /// Makes an image of busybox called `name`.
    pub fn import(&self, name: &str) {
        let archive = self.dir.join("rootfs.tar");
        let mut tar = Command::new("tar");
        let _ = tar.arg("-C").arg(self.dir.join("rootfs"));
        let _archived = output(tar.arg("-cf").arg(&archive).arg("."));
        let _id = output(self.command(&["import"]).arg(archive).arg(name));
    }

    /// Runs a container, and returns when its init process runs.
    #[must_use]
    pub fn run(&self, name: &str, spec: &Spec<'_>) -> Container {
        let parent = self.sandbox.cgroup(spec.below);
        let below = parent
            .strip_prefix(crate::sandbox::cgroup2_mount())
            .unwrap();
        let mut command = self.command(&["run", "--detach", "--network=host", "--pids-limit=-1"]);
        let _ = command
            .args(["--name", name])
            .arg("--cgroup-parent")
            .arg(Path::new("/").join(below));
        for limit in LIMITS.split(' ') {
            let _ = command.args(["--ulimit", limit]);
        }
        for (key, value) in spec.labels {
            let _ = command.arg("--label").arg(format!("{key}={value}"));
        }
        for (host, inside) in container::volumes(self.sandbox) {
            let (host, inside) = (host.display(), inside.display());
            let _ = command.arg("--volume").arg(format!("{host}:{inside}:ro"));
        }
        let _ = match spec.image {
            Some(image) => command.arg(image),
            None => command.arg("--rootfs").arg(self.dir.join("rootfs")),
        };
        let id = output(command.args(spec.command));
        let pid = self.inspect(&id, "{{.State.Pid}}").parse().unwrap();
        Container::new(id, pid)
    }

    /// Runs a program of the sandbox inside a container, as `podman exec` does.
    #[must_use]
    pub fn exec(&self, container: &Container, program: &str, arguments: &[&str]) -> Running {
        let _copy = self.sandbox.program(program);
        let inside = Path::new(PROGRAMS).join(program);
        let mut command = self.command(&["exec", "--interactive", &container.id]);
        Running::spawn(command.arg(inside).args(arguments))
    }

    /// What `podman inspect` says of a container or an image.
    #[must_use]
    pub fn inspect(&self, name: &str, format: &str) -> String {
        output(&mut self.command(&["inspect", "--format", format, name]))
    }

    /// Makes a container that is not started; its id.
    #[must_use]
    pub fn create(&self, name: &str) -> String {
        let mut command = self.command(&["create", "--network=host", "--name", name, "--rootfs"]);
        output(command.arg(self.dir.join("rootfs")).arg("/bin/true"))
    }

    /// Kills and removes a container.
    pub fn remove(&self, container: &Container) {
        let _id = output(&mut self.command(&["rm", "--force", "--time=0", &container.id]));
    }

    /// Serves the Docker API, and returns the path of the socket when it accepts.
    #[must_use]
    pub fn serve(&mut self) -> PathBuf {
        let socket = self.socket();
        let mut command = self.command(&["system", "service", "--time=0"]);
        let log = fs::File::create(self.dir.join("service.log")).unwrap();
        let child = command
            .arg(format!("unix://{}", socket.display()))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.service = Some(child);
        until("podman serves its API", || {
            UnixStream::connect(&socket).is_ok()
        });
        socket
    }

    /// Where it serves the Docker API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("podman.sock")
    }

    /// Ends the service; containers go on, and the socket file stays.
    pub fn stop(&mut self) {
        if let Some(mut service) = self.service.take() {
            let _ended_before = service.kill();
            let _status = service.wait();
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.mounts.command(self.sandbox, "podman");
        let _ = command
            .env("CONTAINERS_CONF", self.dir.join("containers.conf"))
            .arg("--root")
            .arg(self.dir.join("root"))
            .arg("--runroot")
            .arg(self.dir.join("run"))
            .arg("--storage-driver=vfs")
            .args(arguments);
        command
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        self.stop();
        // A container that is not removed here ends with the sandbox's cgroup.
        let mut remove = self.command(&["rm", "--all", "--force", "--time=0"]);
        let _removed = remove.stdout(Stdio::null()).status();
    }
}

/// What a command wrote to its standard output; panics if it fails.
#[track_caller]
pub(crate) fn output(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
