//! Generation and identities on disk: `controller.state` in the state directory.
//!
//! A version line, the SHA-256 of everything after the second line, then JSON. A damaged file stops the
//! controller: numbers are never given out anew silently. The directory is locked while it is in use.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use ringfence_common::abi::identity::{FIRST_WORKLOAD, is_workload};
use ringfence_policy::model::{Document, Identities};
use ringfence_proto::limits;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{StoreError, Version, version::sum};

pub(super) const FILE: &str = "controller.state";
const TEMPORARY: &str = ".controller.state.new";
const LOCK: &str = "lock";
const VERSION: &str = "ringfence-controller-state 1";

/// What is remembered, and the lock on it.
#[derive(Debug)]
pub(super) struct State {
    directory: PathBuf,
    body: Body,
    _lock: File,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Body {
    generation: u64,
    /// Checksum of the policy that the generation stands for.
    checksum: String,
    next_identity: u32,
    identities: Identities,
}

impl State {
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        let failed = |path: PathBuf| move |error| StoreError::State { path, error };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed(directory.to_owned()))?;
        let path = directory.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed(path.clone()))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => StoreError::Locked(path.clone()),
            TryLockError::Error(error) => failed(path.clone())(error),
        })?;
        Ok(Self {
            body: load(&directory.join(FILE))?,
            directory: directory.to_owned(),
            _lock: lock,
        })
    }

    /// Numbers a valid policy and remembers the numbers before anybody sees them.
    pub(super) fn accept(
        &mut self,
        documents: Vec<Document>,
        workloads: &[String],
    ) -> Result<Version, StoreError> {
        let mut body = self.body.clone();
        for workload in workloads {
            if body.identities.contains_key(workload) {
                continue;
            }
            let identity = body.next_identity;
            if !is_workload(identity) || body.identities.len() >= limits::MAX_IDENTITIES {
                return Err(StoreError::NoIdentity);
            }
            body.next_identity += 1;
            let _new = body.identities.insert(workload.clone(), identity);
        }
        let checksum = hex(&sum(&documents, &body.identities));
        let changed = checksum != body.checksum;
        if changed {
            body.generation += 1;
            body.checksum = checksum;
        }
        let version = Version::new(body.generation, documents, body.identities.clone());
        // A margin for the nonce, which is not known yet.
        if version.snapshot_bytes() + 64 > limits::MAX_UPDATE_BYTES {
            return Err(StoreError::TooLarge {
                documents: version.documents().len(),
                bytes: version.snapshot_bytes(),
            });
        }
        if changed {
            save(&self.directory, &body).map_err(|error| StoreError::State {
                path: self.directory.join(FILE),
                error,
            })?;
            self.body = body;
        }
        Ok(version)
    }
}

fn load(path: &Path) -> Result<Body, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::warn!(file = %path.display(), "no state yet: generations start at 1, identities at 256");
            return Ok(Body {
                generation: 0,
                checksum: String::new(),
                next_identity: FIRST_WORKLOAD,
                identities: Identities::new(),
            });
        }
        Err(error) => {
            return Err(StoreError::State {
                path: path.to_owned(),
                error,
            });
        }
    };
    decode(&bytes).map_err(|reason| StoreError::Damaged {
        path: path.to_owned(),
        reason,
    })
}

fn decode(bytes: &[u8]) -> Result<Body, String> {
    let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
    if parts.next() != Some(VERSION.as_bytes()) {
        return Err(format!("the first line is not {VERSION:?}"));
    }
    let (Some(expected), Some(body)) = (parts.next(), parts.next()) else {
        return Err("cut off in its head".into());
    };
    if expected != hex(&Sha256::digest(body)).as_bytes() {
        return Err("the checksum does not match: changed or cut off".into());
    }
    let body: Body = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut seen = std::collections::HashSet::new();
    for (workload, identity) in &body.identities {
        if !is_workload(*identity) || *identity >= body.next_identity || !seen.insert(*identity) {
            return Err(format!(
                "identity {identity} of workload {workload:?} is impossible"
            ));
        }
    }
    Ok(body)
}

fn save(directory: &Path, body: &Body) -> io::Result<()> {
    let body = serde_json::to_vec(body)?;
    let head = format!("{VERSION}\n{}\n", hex(&Sha256::digest(&body)));
    let temporary = directory.join(TEMPORARY);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(head.as_bytes())?;
    file.write_all(&body)?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(FILE))?;
    File::open(directory)?.sync_all()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
