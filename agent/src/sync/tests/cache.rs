//! Whatever is in the file, `load` answers.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::Result;
use proptest::prelude::*;
use ringfence_policy::model::{Document, Identities};

use super::{Body, CacheError, Held, SEAL, judge, load, save};
use crate::sealed::{SealError, hex};

fn policy() -> Held {
    Held {
        generation: 7,
        documents: vec![Document {
            name: "web.toml".into(),
            text: "# \u{fc} \" \\ \n\0".into(),
        }],
        identities: Identities::from([("web".to_owned(), 256)]),
    }
}

#[test]
fn what_is_saved_is_loaded() -> Result<()> {
    let dir = tempfile::tempdir()?;
    assert!(load(dir.path())?.is_none());
    save(dir.path(), &policy())?;
    let mut newer = policy();
    newer.generation = 8;
    fs::write(
        dir.path().join(".policy.cache.new"),
        "left behind by a crash",
    )?;
    save(dir.path(), &newer)?;
    assert_eq!(load(dir.path())?, Some(newer));
    let mode = fs::metadata(dir.path().join(SEAL.file))?
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path())?.count(), 1);
    Ok(())
}

#[test]
fn a_cut_or_changed_file_is_named_and_ignored() -> Result<()> {
    let dir = tempfile::tempdir()?;
    save(dir.path(), &policy())?;
    let path = dir.path().join(SEAL.file);
    let whole = fs::read(&path)?;
    for length in 0..whole.len() {
        fs::write(&path, whole.get(..length).unwrap_or_default())?;
        let Err(error @ CacheError::Ignored(SealError::Damaged { .. })) = load(dir.path()) else {
            panic!("{length} bytes are not a policy");
        };
        assert!(error.to_string().contains(SEAL.file));
        assert!(error.to_string().contains("ignored"));
    }
    for index in 0..whole.len() {
        let mut changed = whole.clone();
        if let Some(byte) = changed.get_mut(index) {
            *byte ^= 1;
        }
        fs::write(&path, changed)?;
        assert!(load(dir.path()).is_err(), "byte {index}");
    }
    Ok(())
}

#[test]
fn a_directory_that_is_not_there_is_an_error_of_save() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let missing = dir.path().join("missing");
    assert!(matches!(
        save(&missing, &policy()),
        Err(CacheError::NotKept(SealError::Write { .. }))
    ));
    assert!(load(&missing)?.is_none());
    Ok(())
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        prop_assert!(SEAL.open::<Body>(&bytes).is_err());
    }

    /// Past the checksum, the contents are judged like those of the controller.
    #[test]
    fn random_bodies_never_panic(body in "[\\[\\]{}\":,a-z0-9]{0,64}", generation in 0..3_u64, name in ".{0,4}", identity in any::<u32>()) {
        let quoted = serde_json::Value::from(name);
        let named = format!(r#"{{"generation":{generation},"documents":{{{quoted}:""}},"identities":{{{quoted}:{identity}}}}}"#);
        for body in [body, named] {
            let sum = hex(body.as_bytes());
            let bytes = format!("{}\n{sum}\n{body}", SEAL.header);
            let _ = SEAL.open(bytes.as_bytes()).and_then(judge);
        }
    }
}
