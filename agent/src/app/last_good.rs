//! The last good documents of the policy directory on disk, for a start with a directory that is gone or
//! not valid: `policy-dir.cache` in the state directory, [sealed](crate::sealed).

use std::{collections::BTreeMap, path::Path};

use ringfence_policy::model::Document;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::sealed::{Seal, SealError};

const SEAL: Seal = Seal {
    file: "policy-dir.cache",
    header: "ringfence-policy-dir-cache 1",
};

/// What is wrong with the copy.
#[derive(Debug, Error)]
pub enum LastGoodError {
    /// It cannot be read, or is damaged.
    #[error(
        "the last good policy of the policy directory can't be used: {0}; mend the directory, or remove that file"
    )]
    Unusable(#[source] SealError),
    /// It cannot be written.
    #[error(
        "{0}; the policy is in force, but a start with a directory that is not valid falls back to an older one: check \
         the state directory and its free space"
    )]
    NotKept(#[source] SealError),
}

/// Documents by name: their paths, unlike those of the controller.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    documents: BTreeMap<String, Box<str>>,
}

#[derive(Serialize)]
struct Saved<'d> {
    documents: BTreeMap<&'d str, &'d str>,
}

/// Keeps these documents.
///
/// # Errors
/// The state directory cannot be written; what was kept before is then still whole.
pub fn save(state_dir: &Path, documents: &[Document]) -> Result<(), LastGoodError> {
    let pairs = documents.iter().map(|it| (it.name.as_str(), &*it.text));
    let body = Saved {
        documents: pairs.collect(),
    };
    SEAL.save(state_dir, &body).map_err(LastGoodError::NotKept)
}

/// What was kept, ordered by name; `None` when nothing was.
///
/// # Errors
/// The file cannot be read or is not what [`save`] wrote.
pub fn load(state_dir: &Path) -> Result<Option<Vec<Document>>, LastGoodError> {
    let judge = |body: Body| {
        let documents = body.documents.into_iter();
        Ok(documents
            .map(|(name, text)| Document {
                name,
                text: text.into(),
            })
            .collect())
    };
    SEAL.load(state_dir, judge).map_err(LastGoodError::Unusable)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn documents_that_are_named_by_their_paths_are_kept() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(load(state.path()).unwrap(), None);
        let named = |name: &str| Document {
            name: format!("/etc/ringfence/policy.d/{name}.toml"),
            text: format!("# {name} \u{fc} \\ \0\n").into(),
        };
        let documents = vec![named("api"), named("web")];
        save(state.path(), &documents).unwrap();
        assert_eq!(load(state.path()).unwrap(), Some(documents));
        save(state.path(), &[]).unwrap();
        assert_eq!(load(state.path()).unwrap(), Some(Vec::new()));
    }

    #[test]
    fn a_damaged_copy_is_an_error_that_names_it_and_no_controller() {
        let state = tempfile::tempdir().unwrap();
        save(state.path(), &[]).unwrap();
        let path = state.path().join(SEAL.file);
        let mut bytes = std::fs::read(&path).unwrap();
        let _ = bytes.pop();
        std::fs::write(&path, bytes).unwrap();
        let error = load(state.path()).unwrap_err().to_string();
        assert!(
            error.contains(SEAL.file) && error.contains("remove that file"),
            "{error}"
        );
        assert!(!error.contains("controller"), "{error}");
    }
}
