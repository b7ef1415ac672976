//! Container runtimes: what the container with a given id is.
//!
//! One question, one answer: no listing, no events. [`run`] asks every runtime of this host for the id, over the unix
//! sockets of the Docker Engine API (docker, podman) and of the Kubernetes CRI (containerd, CRI-O). It never writes,
//! never asks a runtime that is not root's, and never looks into a container.
//!
//! Invariants: what a runtime says is untrusted: bounded in size, number and time, and believed only under the full
//! id that was asked for. A fact that can't be had for sure is not given; an answer that can't be had is
//! [`Outcome::Failed`], never [`Outcome::Absent`]. An answer holds for its moment: a runtime knows a container some
//! milliseconds after its cgroup was made (containerd a sandbox only when it runs), and its process later still, so
//! [`Outcome::Absent`] and `pid` 0 are worth asking again.

mod ask;
mod cri;
mod digest;
mod docker;
mod facts;
pub(crate) mod fuzz;
mod run;
mod service_account;
mod settings;
mod socket;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf};

pub use run::run;
pub use settings::Settings;

/// Facts of a container by the selector's key, as in `container.name` or `k8s.pod-label.app`.
pub type Facts = BTreeMap<String, String>;

/// Which container is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Id of its cgroup; comes back with the answer.
    pub cgroup: u64,
    /// Its id: 64 lower-case hex digits.
    pub id: String,
}

impl Question {
    /// `None` if `id` is not 64 lower-case hex digits.
    #[must_use]
    pub fn new(cgroup: u64, id: &str) -> Option<Self> {
        is_id(id).then(|| Self {
            cgroup,
            id: id.to_owned(),
        })
    }
}

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As in the question.
    pub cgroup: u64,
    /// As in the question.
    pub id: String,
    /// What the runtimes said.
    pub outcome: Outcome,
}

/// What the runtimes said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// One of them has it.
    Found {
        /// Its init process in the agent's PID namespace, as the runtime says; 0 while it is not started and after its end.
        pid: u32,
        /// What is known about it.
        facts: Facts,
    },
    /// All answered, and none has it.
    Absent,
    /// None has it, and one or more could not be asked: which, and why.
    Failed(String),
}

/// A runtime, as it was when it was last asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeState {
    /// Path of its socket.
    pub socket: PathBuf,
    /// What it speaks.
    pub kind: Kind,
    /// How it is.
    pub state: State,
    /// How many questions it answered with a container.
    pub answered: u64,
}

/// What a runtime speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Docker Engine API.
    Docker,
    /// Kubernetes container runtime interface, v1.
    Cri,
}

impl Kind {
    /// Its name in the configuration and in the status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Cri => "cri",
        }
    }
}

/// How a runtime is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// There is none on this socket.
    Absent,
    /// It answers.
    Ok,
    /// It should answer and does not; one sentence.
    Failed(String),
}

/// Whether it is an id of a container, as runtimes write them into names of cgroups.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(is_lower_hex)
}

const fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}
