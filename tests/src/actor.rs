//! Who talks: a program in a cgroup and a network namespace.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Outcome, Running, Sandbox, namespace::Namespace};

/// A program, where it runs, and what it is told to do.
#[derive(Clone, Debug)]
pub struct Actor {
    program: PathBuf,
    cgroup: PathBuf,
    netns: PathBuf,
    groups: Option<(u32, Vec<u32>)>,
    uid: Option<u32>,
}

impl Actor {
    pub(crate) fn new(program: PathBuf, cgroup: PathBuf, netns: PathBuf) -> Self {
        Self {
            program,
            cgroup,
            netns,
            groups: None,
            uid: None,
        }
    }

    /// The same with a real group and supplementary groups.
    #[must_use]
    pub fn in_groups(&self, gid: u32, supplementary: &[u32]) -> Self {
        Self {
            groups: Some((gid, supplementary.to_vec())),
            ..self.clone()
        }
    }

    /// The same as a user without privileges.
    #[must_use]
    pub fn as_user(&self, uid: u32) -> Self {
        Self {
            uid: Some(uid),
            ..self.clone()
        }
    }

    /// The same in another cgroup below the guarded one.
    #[must_use]
    pub fn in_cgroup(&self, sandbox: &Sandbox, path: &str) -> Self {
        Self {
            cgroup: sandbox.cgroup(path),
            ..self.clone()
        }
    }

    /// The same in the cgroup with this directory.
    #[must_use]
    pub fn at(&self, cgroup: &Path) -> Self {
        Self {
            cgroup: cgroup.to_owned(),
            ..self.clone()
        }
    }

    /// The same in another network namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &Namespace) -> Self {
        Self {
            netns: namespace.path(),
            ..self.clone()
        }
    }

    /// Path of the program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// `command[pid]`, as lines of flow records end.
    #[must_use]
    pub fn by(&self, pid: u32) -> String {
        let name = self.program.file_name().unwrap_or_default();
        let command: String = name.to_string_lossy().chars().take(15).collect();
        format!("by {command}[{pid}]")
    }

    /// `call tcp ADDRESS` with more arguments.
    #[must_use]
    pub fn tcp(&self, address: &str, arguments: &[&str]) -> Outcome {
        self.run(&[&["call", "tcp", address], arguments].concat())
    }

    /// `call udp ADDRESS` with more arguments.
    #[must_use]
    pub fn udp(&self, address: &str, arguments: &[&str]) -> Outcome {
        self.run(&[&["call", "udp", address], arguments].concat())
    }

    /// Serves and is ready; `arguments` begin with the protocol and the address.
    #[track_caller]
    #[must_use]
    pub fn serve(&self, arguments: &[&str]) -> Running {
        let mut server = self.start(&[&["serve"], arguments].concat());
        let _ready = server
            .line()
            .expect_ok(&format!("{self:?} serves {arguments:?}"));
        server
    }

    /// A connection to an echo server over which messages go; at least one has passed.
    #[track_caller]
    #[must_use]
    pub fn hold(&self, address: &str) -> Running {
        let mut stream = self.start(&["hold", address]);
        let _connected = stream.line().expect_ok("a connection to hold");
        let _passed = stream.line().expect_ok("a first message");
        stream
    }

    /// A process that waits to be told what to do.
    #[track_caller]
    #[must_use]
    pub fn puppet(&self) -> Running {
        let mut puppet = self.start(&["puppet"]);
        let _ready = puppet.line().expect_ok("a puppet");
        puppet
    }

    /// Where it runs, as the traffic tool is told.
    #[must_use]
    pub fn place(&self) -> [OsString; 4] {
        let [cgroup, netns] = [&self.cgroup, &self.netns].map(OsString::from);
        ["--cgroup".into(), cgroup, "--netns".into(), netns]
    }

    /// Runs it to its end.
    #[track_caller]
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        self.start(arguments).last()
    }

    /// Starts it.
    #[must_use]
    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut command = Command::new(&self.program);
        let _ = command.args(self.place());
        if let Some((gid, supplementary)) = &self.groups {
            let list: Vec<String> = supplementary.iter().map(u32::to_string).collect();
            let _ = command.args(["--gid", &gid.to_string(), "--groups", &list.join(",")]);
        }
        if let Some(uid) = self.uid {
            let _ = command.args(["--uid", &uid.to_string()]);
        }
        let _ = command.args(arguments).stderr(Stdio::inherit());
        Running::spawn(&mut command)
    }
}
