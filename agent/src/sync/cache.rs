//! The last good policy on disk, so that a host enforces it before it has reached the controller.
//!
//! `policy.cache` in the state directory: a version line, the SHA-256 of everything after the second
//! line, then JSON. It is written to a temporary file, synced and renamed: there is the old one or the new one.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use ringfence_policy::model::Document;
use ringfence_proto::limits;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::held::Held;

const FILE: &str = "policy.cache";
const TEMPORARY: &str = ".policy.cache.new";
const VERSION: &str = "ringfence-policy-cache 1";
/// JSON may escape every byte of the policy into six.
const MAX_BYTES: u64 = 8 * limits::MAX_UPDATE_BYTES as u64;

/// What is wrong with the cache.
#[derive(Debug, Error)]
pub enum CacheError {
    /// It cannot be read.
    #[error("cannot read {file}: {error}; it is ignored until the controller sends a policy", file = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is damaged.
    #[error("{file} is damaged ({reason}); it is ignored until the controller sends a policy", file = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It cannot be written.
    #[error(
        "cannot write {file}: {error}; the policy is in force, but a restart without the controller falls back to an \
         older one: check the directory and its free space",
        file = .path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Body {
    generation: u64,
    documents: BTreeMap<String, String>,
    identities: BTreeMap<String, u32>,
}

/// Replaces the cached policy.
///
/// # Errors
/// The directory cannot be written; the old file is then still whole.
pub fn save(dir: &Path, held: &Held) -> Result<(), CacheError> {
    let path = dir.join(FILE);
    write(dir, &path, held).map_err(|error| CacheError::Write { path, error })
}

/// Reads the cached policy; `None` when there is none.
///
/// # Errors
/// The file cannot be read or is not what [`save`] wrote.
pub fn load(dir: &Path) -> Result<Option<Held>, CacheError> {
    let path = dir.join(FILE);
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CacheError::Read { path, error }),
    }
    match decode(&bytes) {
        Ok(held) => Ok(Some(held)),
        Err(reason) => Err(CacheError::Damaged { path, reason }),
    }
}

fn write(dir: &Path, path: &Path, held: &Held) -> io::Result<()> {
    let temporary = dir.join(TEMPORARY);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = encode(held)
        .and_then(|bytes| file.write_all(&bytes))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // Best effort: what matters is the first error.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    File::open(dir)?.sync_all()
}

fn encode(held: &Held) -> io::Result<Vec<u8>> {
    let body = Body {
        generation: held.generation,
        documents: held
            .documents
            .iter()
            .map(|document| (document.name.clone(), document.text.clone()))
            .collect(),
        identities: held.identities.clone(),
    };
    let body = serde_json::to_vec(&body)?;
    let mut bytes = format!("{VERSION}\n{}\n", hex(&body)).into_bytes();
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Held, String> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("larger than {MAX_BYTES} bytes"));
    }
    let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
    if parts.next() != Some(VERSION.as_bytes()) {
        return Err(format!("the first line is not {VERSION:?}"));
    }
    let (Some(sum), Some(body)) = (parts.next(), parts.next()) else {
        return Err("cut off in its head".into());
    };
    if sum != hex(body).as_bytes() {
        return Err("the checksum does not match: changed or cut off".into());
    }
    let body: Body = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let held = Held {
        generation: body.generation,
        documents: body
            .documents
            .into_iter()
            .map(|(name, text)| Document { name, text })
            .collect(),
        identities: body.identities,
    };
    held.check()?;
    Ok(held)
}

fn hex(body: &[u8]) -> String {
    Sha256::digest(body)
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

#[cfg(test)]
#[path = "tests/cache.rs"]
mod tests;
