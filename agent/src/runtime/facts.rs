//! Collects facts within bounds.

use super::{Facts, ask::Miss};

/// Labels of one container or pod. More is an error: which of them a policy needs is not known here.
const MAX_LABELS: usize = 512;
/// Bytes of a key; a longer one is no fact.
const MAX_KEY: usize = 512;
/// Bytes of a value; a longer one is no fact (build tools write whole documents into labels).
const MAX_VALUE: usize = 4096;

/// Adds a fact, unless there is none.
pub(super) fn put(facts: &mut Facts, key: &str, value: &str) {
    if !value.is_empty() && value.len() <= MAX_VALUE {
        let _before = facts.insert(key.to_owned(), value.to_owned());
    }
}

/// Adds labels; their keys stand verbatim after `prefix`.
pub(super) fn put_labels<L>(facts: &mut Facts, prefix: &str, labels: L) -> Result<(), Miss>
where
    L: IntoIterator<Item = (String, String)>,
    L::IntoIter: ExactSizeIterator,
{
    let labels = labels.into_iter();
    if labels.len() > MAX_LABELS {
        let number = labels.len();
        return Err(Miss::Failed(format!(
            "a container has {number} labels, and more than {MAX_LABELS} are not taken"
        )));
    }
    for (key, value) in labels {
        if !key.is_empty() && key.len() <= MAX_KEY && value.len() <= MAX_VALUE {
            let _before = facts.insert(format!("{prefix}{key}"), value);
        }
    }
    Ok(())
}
