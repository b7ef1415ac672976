//! Holds the binary contract to its version: changed types need a new number.
//!
//! `common/abi.lock` has the version and a hash of `common/src/abi/`, taken without comments and white
//! space. The hash of git's HEAD decides whether a new lock may keep the number.

use std::{fmt::Write as _, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::{process, workspace};

const LOCK: &str = "common/abi.lock";

#[derive(Clone, Debug, PartialEq, Eq)]
struct Lock {
    abi: u32,
    sha256: String,
}

/// Fails unless the lock says what the code is.
pub fn check() -> Result<()> {
    let text = fs::read_to_string(workspace::root().join(LOCK))
        .with_context(|| format!("cannot read {LOCK}: `cargo xtask test --bless-abi` writes it"))?;
    let (locked, current) = (Lock::parse(&text)?, current()?);
    permit(committed()?.as_ref(), &current)?;
    if locked != current {
        bail!("{LOCK} is not of this code: `cargo xtask test --bless-abi`");
    }
    Ok(())
}

/// Writes the lock, unless the types differ from HEAD's under the same number.
pub fn bless() -> Result<()> {
    let current = current()?;
    permit(committed()?.as_ref(), &current)?;
    fs::write(workspace::root().join(LOCK), current.render())
        .with_context(|| format!("cannot write {LOCK}"))?;
    println!("{LOCK}: ABI {}", current.abi);
    Ok(())
}

/// Refuses other types under the same number.
fn permit(before: Option<&Lock>, current: &Lock) -> Result<()> {
    if before.is_some_and(|it| it.abi == current.abi && it.sha256 != current.sha256) {
        bail!(
            "common/src/abi has changed and is still ABI {}: programs and maps of both would meet \
             in one pin directory. Raise ABI in common/src/abi/version.rs, then `cargo xtask test \
             --bless-abi`",
            current.abi
        );
    }
    Ok(())
}

/// The lock in HEAD; none if HEAD, or git, is not there.
fn committed() -> Result<Option<Lock>> {
    let mut show = Command::new("git");
    let _ = show
        .current_dir(workspace::root())
        .args(["show", &format!("HEAD:{LOCK}")]);
    process::output(&mut show)
        .ok()
        .map(|text| Lock::parse(&text))
        .transpose()
}

fn current() -> Result<Lock> {
    let dir = workspace::root().join("common/src/abi");
    let mut files = Vec::new();
    let mut dirs = vec![dir.clone()];
    while let Some(dir) = dirs.pop() {
        let entries =
            fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in &files {
        let text = read(file)?;
        hash.update(file.strip_prefix(&dir)?.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update(significant(&text));
        hash.update([0]);
    }
    let mut sha256 = String::new();
    for byte in hash.finalize() {
        write!(sha256, "{byte:02x}")?;
    }
    let version = significant(&read(&dir.join("version.rs"))?);
    let abi = version
        .split_once("ABI:u32=")
        .and_then(|(_, rest)| rest.split_once(';'))
        .and_then(|(number, _)| number.parse().ok())
        .context("common/src/abi/version.rs has no `const ABI: u32 = N;`")?;
    Ok(Lock { abi, sha256 })
}

fn read(file: &PathBuf) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Rust source without comments and white space, except inside literals.
fn significant(source: &str) -> String {
    let mut kept = String::new();
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if next.is_whitespace() {
            next.len_utf8()
        } else {
            let length = literal(rest).unwrap_or(next.len_utf8());
            kept.push_str(rest.get(..length).unwrap_or_default());
            length
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    kept
}

/// The length of the comment that `text` starts with; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of the string or character that `text` starts with; `None` for anything else, a
/// lifetime included. Raw strings are read as plain ones: the same in, the same out.
fn literal(text: &str) -> Option<usize> {
    let mut chars = text.char_indices();
    let (_, quote) = chars.next()?;
    let lifetime = || {
        let mut after = text.chars().skip(1);
        after.next() != Some('\\') && after.next() != Some('\'')
    };
    if quote != '"' && (quote != '\'' || lifetime()) {
        return None;
    }
    let mut escaped = false;
    for (at, char) in chars {
        if !escaped && char == quote {
            return Some(at + 1);
        }
        escaped = !escaped && char == '\\';
    }
    Some(text.len())
}

impl Lock {
    fn parse(text: &str) -> Result<Self> {
        let field = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='))
                .map(|value| value.trim().trim_matches('"'))
                .with_context(|| format!("{LOCK} has no `{key}`"))
        };
        let abi = field("abi")?;
        Ok(Self {
            abi: abi
                .parse()
                .with_context(|| format!("{LOCK}: `{abi}` is no version"))?,
            sha256: field("sha256")?.to_owned(),
        })
    }

    fn render(&self) -> String {
        format!(
            "# Written by `cargo xtask test --bless-abi`: the version of the binary contract, and the\n\
             # hash of common/src/abi without comments and white space.\nabi = {}\nsha256 = \"{}\"\n",
            self.abi, self.sha256
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_white_space_do_not_count() {
        let source = "/// Doc.\npub struct A<'a> { /* x /* y */ 'z */ b: u8, // c\n}";
        assert_eq!(significant(source), "pubstructA<'a>{b:u8,}");
    }

    #[test]
    fn literals_are_kept_as_they_are() {
        let source = r#"x("a // b", '"', b'\'', "\" /* c") // d"#;
        assert_eq!(significant(source), r#"x("a // b",'"',b'\'',"\" /* c")"#);
    }

    #[test]
    fn changed_types_need_a_new_number() {
        let lock = |abi, sha256: &str| Lock {
            abi,
            sha256: sha256.to_owned(),
        };
        assert!(permit(Some(&lock(1, "a")), &lock(1, "b")).is_err());
        assert!(permit(Some(&lock(1, "a")), &lock(2, "b")).is_ok());
        assert!(permit(Some(&lock(1, "a")), &lock(1, "a")).is_ok());
        assert!(permit(None, &lock(1, "a")).is_ok());
    }

    #[test]
    fn the_lock_reads_back() -> Result<()> {
        let lock = Lock {
            abi: 7,
            sha256: "00ff".to_owned(),
        };
        assert_eq!(Lock::parse(&lock.render())?, lock);
        Ok(())
    }
}
