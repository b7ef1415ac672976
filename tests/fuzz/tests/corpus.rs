//! Every kept input, and changes of it that are the same on each run.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic fails the test"
)]

use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use ringfence_fuzz::{TARGETS, Target};

/// Changed inputs per target.
const CHANGED: usize = 3_000;
/// Bytes of a changed input at most.
const LONGEST: usize = 16 << 10;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn kept(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(corpus().join(target.name)).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort_unstable();
    let read = |path: PathBuf| (path.clone(), fs::read(path).unwrap());
    paths.into_iter().map(read).collect()
}

/// xorshift64*: the same numbers on every machine.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(number).unwrap() % end.max(1)
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        start..(start + self.below(33)).min(length)
    }

    /// A few changes, of the kinds that parsers stumble over.
    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        const ODD: [&[u8]; 8] = [
            b"\0",
            b"\xff",
            b"-1",
            b"18446744073709551616",
            b"\"",
            b"\xf0\x9f\xa7\xb1",
            b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
            b"\n\n",
        ];
        for _ in 0..=self.below(4) {
            let at = self.below(input.len() + 1);
            match self.below(7) {
                0 => input.truncate(at),
                1 => drop(input.drain(self.range(input.len()))),
                2 => {
                    let twice = input[self.range(input.len())].to_vec();
                    drop(input.splice(at..at, twice));
                }
                3 => drop(input.splice(at..at, ODD[self.below(ODD.len())].iter().copied())),
                4 => drop(input.splice(at..at, other[self.range(other.len())].iter().copied())),
                5 => drop(input.splice(at.., other[self.below(other.len() + 1)..].iter().copied())),
                _ => {
                    if let Some(byte) = input.get_mut(at) {
                        *byte ^= 1 << self.below(8);
                    }
                }
            }
        }
        input.truncate(LONGEST);
    }
}

fn run(target: &Target, input: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let path = std::env::temp_dir().join(format!("ringfence-fuzz-{}", target.name));
        fs::write(&path, input).unwrap();
        panic!(
            "{}: {what} panicked; the input is in {}: mend it and keep the input",
            target.name,
            path.display()
        );
    }
}

#[test]
fn every_target_returns_from_whatever_it_is_given() {
    for target in &TARGETS {
        let kept = kept(target);
        assert!(!kept.is_empty(), "{} has no corpus", target.name);
        for (path, input) in &kept {
            run(target, input, &path.display().to_string());
        }
        let mut numbers = Numbers(0x5EED);
        for number in 0..CHANGED {
            let mut input = kept[numbers.below(kept.len())].1.clone();
            let other = kept[numbers.below(kept.len())].1.clone();
            numbers.change(&mut input, &other);
            run(target, &input, &format!("changed input {number}"));
        }
    }
}

#[test]
fn each_directory_of_the_corpus_has_its_target() {
    let directories = fs::read_dir(corpus()).unwrap();
    let names = directories.map(|directory| directory.unwrap().file_name().into_string().unwrap());
    let targets = TARGETS.iter().map(|target| target.name.to_owned());
    assert_eq!(names.collect::<BTreeSet<_>>(), targets.collect());
}
