//! A controller that serves policy to agents of a sandbox.

use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;

use crate::{Actor, Options, Sandbox, agent::free_address, daemon::Daemon, program};

/// A running controller.
pub struct Controller {
    daemon: Daemon,
    dir: PathBuf,
    address: SocketAddr,
    launcher: Vec<OsString>,
}

impl Controller {
    /// Starts one that serves `policy`.
    #[track_caller]
    #[must_use]
    pub fn start(sandbox: &Sandbox, policy: &str) -> Self {
        Self::launch(sandbox, policy, Vec::new())
    }

    /// Starts one where an actor runs.
    #[track_caller]
    #[must_use]
    pub fn start_at(place: &Actor, sandbox: &Sandbox, policy: &str) -> Self {
        Self::launch(sandbox, policy, launched_at(place))
    }

    #[track_caller]
    fn launch(sandbox: &Sandbox, policy: &str, launcher: Vec<OsString>) -> Self {
        let dir = sandbox.files().join("controller");
        for name in ["policy.d", "state"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        write(&dir, policy);
        let address = free_address();
        let config = format!(
            "[server]\nlisten = \"{address}\"\n\n[store]\npolicy-dir = \"{0}/policy.d\"\nstate-dir = \"{0}/state\"\n",
            dir.display()
        );
        fs::write(dir.join("controller.toml"), config).unwrap();
        Self {
            daemon: start(&launcher, &dir),
            dir,
            address,
            launcher,
        }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Options of an agent that gets its policy from here.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            sections: format!(
                "[controller]\nendpoints = [\"http://{}\"]\nhost = \"test-host\"\n",
                self.address
            ),
            ..Options::default()
        }
    }

    /// Serves another policy from now on.
    pub fn set_policy(&self, policy: &str) {
        write(&self.dir, policy);
    }

    /// What it knows of the first agent, by its command line; `Null` when it knows none.
    #[must_use]
    pub fn agent(&self) -> serde_json::Value {
        let state = self.ask("agents");
        state.pointer("/agents/0").cloned().unwrap_or_default()
    }

    /// What it knows of endpoints, by its command line; `Null` when it does not answer.
    #[must_use]
    pub fn endpoints(&self) -> serde_json::Value {
        self.ask("endpoints")
    }

    fn ask(&self, command: &str) -> serde_json::Value {
        let output = Command::new(program::product("ringfence-controller"))
            .args([command, "--output", "json", "--endpoint"])
            .arg(format!("http://{}", self.address))
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// SIGTERM; whether it ended with code 0.
    #[track_caller]
    pub fn stop(&mut self) -> bool {
        self.daemon.signal(Signal::SIGTERM);
        self.daemon.wait().success()
    }

    /// Starts it again.
    pub fn restart(&mut self) {
        self.daemon = start(&self.launcher, &self.dir);
    }

    /// Its process.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

/// What the traffic tool is told to start a daemon where an actor runs.
#[must_use]
pub fn launched_at(place: &Actor) -> Vec<OsString> {
    let place = place.place().into_iter();
    place.chain(["run".into()]).collect()
}

#[track_caller]
fn start(launcher: &[OsString], dir: &Path) -> Daemon {
    let config = dir.join("controller.toml");
    let arguments: [OsString; 3] = ["serve".into(), "--config".into(), config.into()];
    Daemon::launch(launcher, "ringfence-controller", &arguments, dir)
        .unwrap_or_else(|ended| panic!("the controller ended, {}\n{}", ended.status, ended.log))
}

fn write(dir: &Path, policy: &str) {
    let path = dir.join("policy.d/policy.toml");
    let new = dir.join("policy.d/policy.new");
    fs::write(&new, policy).unwrap();
    fs::rename(&new, &path).unwrap();
}
