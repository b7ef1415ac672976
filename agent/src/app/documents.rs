//! The policy directory, as the agent sees it.

use std::path::Path;

use ringfence_documents::Naming;
use ringfence_policy::model::Document;

/// The documents of the directory. One that is not there, or holds none, stands for an empty policy only
/// while no other is in force (`guarded` is false): a mount that is missing opens nothing.
///
/// # Errors
/// Why the directory is refused, in one line.
pub fn read(directory: &Path, guarded: bool) -> Result<Vec<Document>, String> {
    match ringfence_documents::read(directory, Naming::Path) {
        Ok(documents) => Ok(documents),
        Err(error) if error.is_absence() && !guarded => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_directory_without_documents_is_an_empty_policy_only_where_there_was_none() {
        let home = tempfile::tempdir().unwrap();
        for directory in [home.path().to_owned(), home.path().join("missing")] {
            assert_eq!(read(&directory, false), Ok(Vec::new()));
            let error = read(&directory, true).unwrap_err();
            assert!(error.contains(&directory.display().to_string()), "{error}");
            assert!(error.contains("empty .toml file"), "{error}");
        }
        std::fs::write(home.path().join("empty.toml"), "").unwrap();
        assert_eq!(read(home.path(), true).unwrap().len(), 1);
    }
}
