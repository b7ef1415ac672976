//! Order and bounds, with real files.
#![expect(clippy::expect_used, reason = "a panic fails the test")]

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};

use super::*;
use crate::identity::{file::Executable, mounts::Mounts};

fn sparse(directory: &Path, name: &str, bytes: u64) -> PathBuf {
    let path = directory.join(name);
    File::create(&path)
        .and_then(|file| file.set_len(bytes))
        .expect("a sparse file");
    path
}

fn hashing(path: &Path) -> Hashing {
    let file = Executable::open(path, &Mounts::own().expect("mounts")).expect("open");
    Hashing::begin(file, None)
}

fn next(hasher: &Hasher) -> Vec<Outcome> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let outcomes = hasher.take();
        if !outcomes.is_empty() {
            return outcomes;
        }
        assert!(Instant::now() < deadline, "nothing was hashed");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn small_files_are_done_while_one_without_end_is_read() {
    let directory = tempfile::tempdir().expect("directory");
    let endless = hashing(&sparse(directory.path(), "endless", 1 << 40));
    let endless_key = endless.key();
    let hasher = Hasher::start().expect("thread");
    assert!(hasher.ask(endless));
    for (name, bytes) in [("one", 3 << 20), ("two", 0), ("three", 5)] {
        let small = hashing(&sparse(directory.path(), name, bytes));
        let key = small.key();
        assert!(hasher.ask(small));
        let outcomes = next(&hasher);
        let [
            Outcome {
                key: found,
                digest: Ok(Some(digest)),
                ..
            },
        ] = outcomes.as_slice()
        else {
            panic!("{outcomes:?}");
        };
        let zeros = vec![0; usize::try_from(bytes).expect("size")];
        let expected: [u8; 32] = Sha256::digest(zeros).into();
        assert_eq!((*found, *digest), (key, expected), "{name}");
        assert!(!hasher.is_asked(&key), "{name}");
    }
    assert!(hasher.is_asked(&endless_key));
}

#[test]
fn a_file_is_asked_for_once_and_the_number_of_files_is_bounded() {
    let directory = tempfile::tempdir().expect("directory");
    let path = sparse(directory.path(), "endless", 1 << 40);
    let hasher = Hasher::start().expect("thread");
    for _ in 0..3 {
        assert!(hasher.ask(hashing(&path)));
    }
    assert_eq!(hasher.0.0.lock().asked.len(), 1);
    let more: Vec<bool> = (0..MOST)
        .map(|number| {
            let path = sparse(directory.path(), &number.to_string(), 1 << 40);
            hasher.ask(hashing(&path))
        })
        .collect();
    assert_eq!(more.iter().filter(|asked| **asked).count(), MOST - 1);
    assert_eq!(more.last(), Some(&false));

    let small = hashing(&sparse(directory.path(), "small", 5));
    let key = small.key();
    assert!(hasher.ask(small));
    assert_eq!(hasher.0.0.lock().asked.len(), MOST);
    let outcomes = next(&hasher);
    assert!(
        matches!(outcomes.as_slice(), [Outcome { key: found, digest: Ok(_), .. }] if *found == key),
        "{outcomes:?}"
    );
}

#[test]
fn a_large_file_gets_a_share_of_the_slices() {
    let directory = tempfile::tempdir().expect("directory");
    let mut state = State::default();
    let large = hashing(&sparse(directory.path(), "large", 1 << 30));
    let key = large.key();
    state.waiting.push(large);
    for name in ["a", "b"] {
        state
            .waiting
            .push(hashing(&sparse(directory.path(), name, 1)));
    }
    let turns = (0..80).filter_map(|_| state.choose());
    let keys: Vec<usize> = turns.collect();
    let of_large = keys
        .iter()
        .filter(|place| state.waiting.get(**place).is_some_and(|it| it.key() == key));
    assert_eq!(of_large.count(), 10);
}

#[test]
fn a_file_that_changes_meanwhile_is_not_judged() {
    let directory = tempfile::tempdir().expect("directory");
    let path = sparse(directory.path(), "app", 1 << 20);
    let asked = hashing(&path);
    thread::sleep(Duration::from_millis(20));
    File::options()
        .write(true)
        .open(&path)
        .and_then(|file| file.set_len(5))
        .expect("change");
    let hasher = Hasher::start().expect("thread");
    assert!(hasher.ask(asked));
    let outcomes = next(&hasher);
    assert!(
        matches!(outcomes.as_slice(), [Outcome { digest: Err(_), .. }]),
        "{outcomes:?}"
    );
}
