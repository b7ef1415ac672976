//! Selectors asked one by one. A further kind of selector is one more arm in [`Asked::found`].

use std::{
    collections::HashMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use globset::GlobSet;
use nix::unistd::{Uid, User};
use ringfence_common::abi::ExecutableKey;
use ringfence_policy::model::{Selector, Workload};

use super::{
    super::{
        file::Executable,
        hash::Hashing,
        live::{Live, ProgramState},
        mounts::Mounts,
        names,
        systemd::{self, Component, Managed},
    },
    Candidate,
};

/// One selector against one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorCheck {
    /// Name in a policy document.
    pub key: String,
    /// It matches.
    pub matched: bool,
    /// What it asks for.
    pub wanted: String,
    /// What the process has.
    pub found: String,
}

/// Asks selectors; remembers files and users for as long as it lives.
#[derive(Default)]
pub struct Asked {
    hash_limit: u64,
    mounts: Mounts,
    files: HashMap<PathBuf, Option<ExecutableKey>>,
    users: HashMap<String, Option<u32>>,
    names: HashMap<u32, String>,
    digests: HashMap<ExecutableKey, Result<String, String>>,
}

/// How much may be read for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Executables are hashed where a selector asks for a digest.
    Whole,
    /// Nothing is hashed: a digest is said to be as the tables found it.
    AsJudged,
}

impl Asked {
    /// With the mounts of this moment. Executables larger than `hash_limit` bytes have no digest.
    #[must_use]
    pub fn new(hash_limit: u64) -> Self {
        Self {
            hash_limit,
            mounts: Mounts::own().unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Every selector of a workload against a process.
    pub fn checks(&mut self, workload: &Workload, live: &Live, depth: Depth) -> Vec<SelectorCheck> {
        let selectors = workload.selectors.iter();
        selectors
            .map(|selector| self.check(selector, live, depth))
            .collect()
    }

    /// The same, unless more than one fails: what costs most is asked last.
    pub(super) fn near(&mut self, workload: &Workload, live: &Live) -> Option<Candidate> {
        let mut order: Vec<(usize, &Selector)> = workload.selectors.iter().enumerate().collect();
        order.sort_by_key(|(_, selector)| cost(selector));
        let (mut checks, mut missed) = (Vec::new(), 0);
        for (position, selector) in order {
            let check = self.check(selector, live, Depth::Whole);
            missed += usize::from(!check.matched);
            // A workload of one selector that fails is not nearly matched.
            if missed > 1 || (missed == 1 && workload.selectors.len() == 1) {
                return None;
            }
            checks.push((position, check));
        }
        checks.sort_by_key(|(position, _)| *position);
        Some(Candidate {
            workload: 0,
            checks: checks.into_iter().map(|(_, check)| check).collect(),
            matched: missed == 0,
            criterion: String::new(),
        })
    }

    pub(super) fn check(
        &mut self,
        selector: &Selector,
        live: &Live,
        depth: Depth,
    ) -> SelectorCheck {
        let (matched, wanted, found) = self.found(selector, live, depth);
        SelectorCheck {
            key: selector.key().to_owned(),
            matched,
            wanted,
            found,
        }
    }

    /// Whether it matches, what it wants and what there is.
    fn found(&mut self, selector: &Selector, live: &Live, depth: Depth) -> (bool, String, String) {
        match selector {
            Selector::Cgroup(glob) => {
                let set = GlobSet::builder().add(glob.clone()).build();
                let covers = |path| set.as_ref().is_ok_and(|set| set.is_match(path));
                let matched = live.cgroup.ancestors().any(covers);
                (matched, glob.glob().to_owned(), shown(&live.cgroup))
            }
            Selector::SystemdUnit(unit) => {
                let found = systemd::units(&live.cgroup).host.unit;
                among(unit, found.as_slice(), "none")
            }
            Selector::SystemdSlice(slice) => {
                let found = systemd::units(&live.cgroup).host.slices;
                among(slice, &found, "none")
            }
            Selector::SystemdUserUnit(unit) => {
                let (found, none) = of_user(live);
                among(unit, found.unit.as_slice(), &none)
            }
            Selector::SystemdUserSlice(slice) => {
                let (found, none) = of_user(live);
                among(slice, &found.slices, &none)
            }
            Selector::Exe(path) => {
                let wanted = self.key_at(path);
                let matched = wanted.is_some() && wanted == live.program.key;
                (
                    matched,
                    shown(path),
                    program(live, matched, wanted.is_some(), path),
                )
            }
            Selector::Sha256(sum) => {
                let wanted = hex(sum);
                if depth == Depth::AsJudged {
                    return (true, wanted.clone(), wanted);
                }
                match self.digest(live) {
                    Ok(found) => (found == wanted, wanted, found),
                    Err(why) => (false, wanted, why),
                }
            }
            Selector::Container { key, value } => {
                let found = live.container.as_ref().map(|facts| facts.get(key));
                let shown = match found {
                    None => "in no container that a runtime knows".to_owned(),
                    Some(None) => "none".to_owned(),
                    Some(Some(found)) => found.clone(),
                };
                (found.flatten() == Some(value), value.clone(), shown)
            }
            Selector::Uid(uid) => (live.uid == *uid, uid.to_string(), self.user_name(live.uid)),
            Selector::Gid(gid) => (
                live.groups.hold(*gid),
                gid.to_string(),
                live.groups.to_string(),
            ),
            Selector::Group(name) => {
                let known = names::group(name);
                let wanted = match known {
                    Some(gid) => format!("{name} ({gid})"),
                    None => format!("{name} (unknown on this host)"),
                };
                let matched = known.is_some_and(|gid| live.groups.hold(gid));
                (matched, wanted, live.groups.to_string())
            }
            Selector::User(name) => {
                let known = *self
                    .users
                    .entry(name.clone())
                    .or_insert_with(|| names::user(name));
                let wanted = match known {
                    Some(uid) => format!("{name} ({uid})"),
                    None => format!("{name} (unknown on this host)"),
                };
                (known == Some(live.uid), wanted, self.user_name(live.uid))
            }
        }
    }

    /// Number and name of a user.
    pub fn user_name(&mut self, uid: u32) -> String {
        match self.name_of(uid) {
            "" => uid.to_string(),
            name => format!("{uid} ({name})"),
        }
    }

    /// Name of a user; empty if it has none.
    pub fn name_of(&mut self, uid: u32) -> &str {
        self.names.entry(uid).or_insert_with(|| {
            let user = User::from_uid(Uid::from_raw(uid));
            user.ok()
                .flatten()
                .map_or_else(String::new, |user| user.name)
        })
    }

    fn key_at(&mut self, path: &Path) -> Option<ExecutableKey> {
        if let Some(known) = self.files.get(path) {
            return *known;
        }
        let key = Executable::open(path, &self.mounts)
            .ok()
            .map(|file| file.key);
        let _ = self.files.insert(path.to_path_buf(), key);
        key
    }

    /// The digest in hexadecimal, or why there is none.
    fn digest(&mut self, live: &Live) -> Result<String, String> {
        let key = match (live.program.state, live.program.key) {
            (ProgramState::Foreign, _) => {
                return Err("none: a user answers for its file system".to_owned());
            }
            (_, None) => return Err("none: the executable can't be read".to_owned()),
            (_, Some(key)) => key,
        };
        if let Some(known) = self.digests.get(&key) {
            return known.clone();
        }
        let taken = Executable::of_process(live.tgid, &self.mounts).and_then(|(file, _)| {
            Hashing::new(file, live.tgid, self.hash_limit, &self.mounts)?
                .map(Hashing::finish)
                .map_or_else(|why| Ok(Err(why)), |sum| sum.map(Ok))
        });
        let text = match taken {
            Ok(Ok(sum)) => Ok(hex(&sum)),
            Ok(Err(why)) => Err(format!("none: {}", why.reason())),
            Err(error) => Err(format!("none: {error}")),
        };
        let _ = self.digests.insert(key, text.clone());
        text
    }
}

/// What a process runs, as an answer to an `exe` selector.
fn program(live: &Live, matched: bool, there: bool, wanted: &Path) -> String {
    let mut text = shown(&live.program.path);
    let note = match live.program.state {
        ProgramState::Unreadable => return "can't be read".to_owned(),
        ProgramState::Deleted => "removed or replaced since it was started: restart the process",
        ProgramState::Memfd => "in memory only",
        ProgramState::OtherMounts => "in another mount namespace or root",
        ProgramState::Foreign => "on a file system that a user answers for",
        ProgramState::OnDisk if !matched && !there => "nothing is at the path of the selector",
        ProgramState::OnDisk if !matched && live.program.path == wanted => "another file since",
        ProgramState::OnDisk => return text,
    };
    let _infallible = write!(text, " ({note})");
    text
}

/// Whether a name is among those found, and both in words.
fn among(wanted: &str, found: &[Component<'_>], none: &str) -> (bool, String, String) {
    let names: Vec<_> = found
        .iter()
        .map(|(_, name)| String::from_utf8_lossy(name).into_owned())
        .collect();
    let is =
        |name: &String| *name == wanted || systemd::template_of(name).as_deref() == Some(wanted);
    let matched = names.iter().any(is);
    let list = names.join(", ");
    let list = if list.is_empty() {
        none.to_owned()
    } else {
        list
    };
    (matched, wanted.to_owned(), list)
}

/// What the service manager of the process's own user has put there, and what to say where there is nothing.
fn of_user(live: &Live) -> (Managed<'_>, String) {
    match systemd::units(&live.cgroup).user {
        Some((uid, managed)) if uid == live.uid => (managed, "none".to_owned()),
        Some((uid, _)) => (
            Managed::default(),
            format!(
                "none: the process is of user {}, the service manager of user {uid}",
                live.uid
            ),
        ),
        None => (
            Managed::default(),
            "none: not below the service manager of a user".to_owned(),
        ),
    }
}

/// What takes longer to ask comes later.
const fn cost(selector: &Selector) -> u8 {
    if matches!(selector, Selector::Sha256(_)) {
        2
    } else if matches!(selector, Selector::Exe(_)) {
        1
    } else {
        0
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
