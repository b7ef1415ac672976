//! Order and bounds, with real files.
#![expect(clippy::expect_used, reason = "a panic fails the test")]

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};

use super::*;
use crate::identity::{file::Executable, hash::TICK, mounts::Mounts};

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

const ONE: Asker = Asker::User(1);
const TWO: Asker = Asker::User(2);

/// Without a bound that counts.
fn start() -> Hasher {
    Hasher::start(1 << 40, 1 << 50).expect("thread")
}

fn state(rate: u64, burst: u64) -> State {
    State::new(Accounts::new(rate, burst))
}

/// When any file of now is so old that a change would be seen.
fn settled() -> SystemTime {
    SystemTime::now() + Duration::from_secs(1)
}

/// Reads nothing: the file goes back, and its asker pays for this many bytes.
fn turn(state: &mut State, bytes: u64, now: Instant) -> Option<(Asker, ExecutableKey)> {
    let Turn::Read(asker, hashing) = state.choose(now, settled()) else {
        return None;
    };
    let key = hashing.key();
    state.insert(asker, hashing);
    state.accounts.charge(asker, bytes, now);
    Some((asker, key))
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
    let hasher = start();
    assert!(hasher.ask(endless, ONE));
    for (name, bytes) in [("one", 3 << 20), ("two", 0), ("three", 5)] {
        let small = hashing(&sparse(directory.path(), name, bytes));
        let key = small.key();
        assert!(hasher.ask(small, ONE));
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
    let hasher = start();
    for _ in 0..3 {
        assert!(hasher.ask(hashing(&path), ONE));
    }
    assert_eq!(hasher.0.0.lock().asked.len(), 1);
    let more: Vec<bool> = (0..MOST)
        .map(|number| {
            let path = sparse(directory.path(), &number.to_string(), 1 << 40);
            hasher.ask(hashing(&path), ONE)
        })
        .collect();
    assert_eq!(more.iter().filter(|asked| **asked).count(), MOST - 1);
    assert_eq!(more.last(), Some(&false));

    let small = hashing(&sparse(directory.path(), "small", 5));
    let key = small.key();
    assert!(hasher.ask(small, ONE));
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
    let mut state = state(1 << 40, 1 << 50);
    let large = hashing(&sparse(directory.path(), "large", 1 << 30));
    let key = large.key();
    state.insert(ONE, large);
    for name in ["a", "b"] {
        state.insert(ONE, hashing(&sparse(directory.path(), name, 1)));
    }
    let now = Instant::now();
    let turns = (0..80).filter_map(|_| turn(&mut state, 1, now));
    assert_eq!(turns.filter(|(_, chosen)| *chosen == key).count(), 10);
}

#[test]
fn askers_take_turns_however_many_and_small_their_files_are() {
    let directory = tempfile::tempdir().expect("directory");
    let mut state = state(1 << 40, 1 << 50);
    state.insert(TWO, hashing(&sparse(directory.path(), "large", 1 << 30)));
    for number in 0..50 {
        let file = sparse(directory.path(), &number.to_string(), 1);
        state.insert(ONE, hashing(&file));
    }
    let now = Instant::now();
    let turns: Vec<Asker> = (0..6)
        .filter_map(|_| turn(&mut state, 1, now).map(|(asker, _)| asker))
        .collect();
    assert_eq!(turns, [ONE, TWO, ONE, TWO, ONE, TWO]);
}

#[test]
fn who_has_used_up_his_rate_waits_alone() {
    let directory = tempfile::tempdir().expect("directory");
    let mut state = state(1 << 20, 4 << 20);
    for (asker, name) in [(ONE, "one"), (TWO, "two")] {
        state.insert(asker, hashing(&sparse(directory.path(), name, 1 << 40)));
    }
    let now = Instant::now();
    let _first = turn(&mut state, 64 << 20, now);
    for _ in 0..3 {
        assert_eq!(turn(&mut state, 1, now).map(|(asker, _)| asker), Some(TWO));
    }
    let _most = turn(&mut state, 20 << 20, now);
    assert!(
        matches!(state.choose(now, settled()), Turn::Wait(time) if (15..18).contains(&time.as_secs())),
        "until the first of them may go on"
    );
    let later = now + Duration::from_secs(17);
    assert_eq!(
        turn(&mut state, 1, later).map(|(asker, _)| asker),
        Some(TWO)
    );
}

#[test]
fn a_file_that_was_just_changed_keeps_no_other_waiting() {
    let directory = tempfile::tempdir().expect("directory");
    let mut state = state(1 << 40, 1 << 50);
    let old = hashing(&sparse(directory.path(), "old", 1 << 20));
    let key = old.key();
    thread::sleep(TICK * 2);
    let young = hashing(&sparse(directory.path(), "young", 1));
    let changed = Duration::new(young.key().ctime_sec, young.key().ctime_nsec);
    let now = SystemTime::UNIX_EPOCH + changed + TICK / 4;
    state.insert(ONE, young);
    let turn = state.choose(Instant::now(), now);
    assert!(
        matches!(turn, Turn::Wait(left) if left == TICK * 3 / 4),
        "{turn:?}"
    );
    state.insert(ONE, old);
    let read = state.choose(Instant::now(), now);
    assert!(
        matches!(&read, Turn::Read(ONE, file) if file.key() == key),
        "{read:?}"
    );
}

#[test]
fn whoever_asked_for_most_makes_room() {
    let directory = tempfile::tempdir().expect("directory");
    let mut state = state(1 << 40, 1 << 50);
    let add = |state: &mut State, asker, name: &str, bytes| {
        let file = hashing(&sparse(directory.path(), name, bytes));
        let _ = state.asked.insert(file.key());
        state.insert(asker, file);
    };
    for number in 0..4_u64 {
        add(&mut state, ONE, &format!("one{number}"), number);
    }
    add(&mut state, TWO, "two", 1 << 30);
    assert!(
        state.make_room(TWO, 1 << 40),
        "one of the other's, however small"
    );
    assert!(state.make_room(ONE, 1), "his own larger one");
    assert!(!state.make_room(ONE, 1), "none of his is larger");
    let left = |asker| state.lines.get(&asker).map_or(0, |line| line.waiting.len());
    assert_eq!((left(ONE), left(TWO), state.asked.len()), (2, 1, 3));
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
    let hasher = start();
    assert!(hasher.ask(asked, ONE));
    let outcomes = next(&hasher);
    assert!(
        matches!(outcomes.as_slice(), [Outcome { digest: Err(_), .. }]),
        "{outcomes:?}"
    );
}
