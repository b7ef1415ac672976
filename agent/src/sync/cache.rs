//! The last good policy of the controller on disk, so that a host enforces it before it has reached the
//! controller: `policy.cache` in the state directory, [sealed](crate::sealed).

use std::{collections::BTreeMap, path::Path};

use ringfence_policy::model::Document;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::held::Held;
use crate::sealed::{Seal, SealError};

const SEAL: Seal = Seal {
    file: "policy.cache",
    header: "ringfence-policy-cache 1",
};

/// What is wrong with the cache.
#[derive(Debug, Error)]
pub enum CacheError {
    /// It cannot be read, or is damaged.
    #[error("{0}; it is ignored until the controller sends a policy")]
    Ignored(#[source] SealError),
    /// It cannot be written.
    #[error(
        "{0}; the policy is in force, but a restart without the controller falls back to an older one: check the \
         directory and its free space"
    )]
    NotKept(#[source] SealError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    generation: u64,
    documents: BTreeMap<String, Box<str>>,
    identities: BTreeMap<String, u32>,
}

#[derive(Serialize)]
struct Saved<'h> {
    generation: u64,
    documents: BTreeMap<&'h str, &'h str>,
    identities: &'h BTreeMap<String, u32>,
}

/// Replaces the cached policy.
///
/// # Errors
/// The directory cannot be written; the old file is then still whole.
pub fn save(dir: &Path, held: &Held) -> Result<(), CacheError> {
    let body = Saved {
        generation: held.generation,
        documents: held
            .documents
            .iter()
            .map(|document| (document.name.as_str(), &*document.text))
            .collect(),
        identities: &held.identities,
    };
    SEAL.save(dir, &body).map_err(CacheError::NotKept)
}

/// Reads the cached policy; `None` when there is none.
///
/// # Errors
/// The file cannot be read or is not what [`save`] wrote.
pub fn load(dir: &Path) -> Result<Option<Held>, CacheError> {
    SEAL.load(dir, judge).map_err(CacheError::Ignored)
}

/// The contents are judged like those of the controller.
fn judge(body: Body) -> Result<Held, String> {
    let held = Held {
        generation: body.generation,
        documents: body
            .documents
            .into_iter()
            .map(|(name, text)| Document {
                name,
                text: text.into(),
            })
            .collect(),
        identities: body.identities,
    };
    held.check()?;
    Ok(held)
}

#[cfg(test)]
#[path = "tests/cache.rs"]
mod tests;
