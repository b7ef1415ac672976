//! Entrances for the fuzz targets: the parsers of bytes from outside that have no public one. What is read is dropped.

use std::path::Path;

use crate::{config, datapath, identity, runtime};

pub use crate::{api::fuzz::requests as api, sync::fuzz::response as sync};

/// The agent's configuration.
pub fn config(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        let _read = config::parse(Path::new("agent.toml"), text);
    }
}

/// Records of the ring buffer, one after the other, through to the message that the interface sends.
pub fn event(bytes: &[u8]) {
    datapath::fuzz_events(bytes);
}

/// What the Docker Engine API answers: a container, and after a zero byte its image.
pub fn docker(bytes: &[u8]) {
    runtime::fuzz::docker(bytes);
}

/// What the Kubernetes CRI answers: status of a container and of a sandbox, each with its length before it.
pub fn cri(bytes: &[u8]) {
    runtime::fuzz::cri(bytes);
}

/// The token of a service account.
pub fn token(bytes: &[u8]) {
    runtime::fuzz::token(bytes);
}

/// `/proc/PID/mountinfo`, whose paths users choose.
pub fn mounts(bytes: &[u8]) {
    identity::fuzz_mounts(bytes);
}

/// The beginning of an executable that may be a script.
pub fn script(bytes: &[u8]) {
    identity::fuzz_script(bytes);
}
