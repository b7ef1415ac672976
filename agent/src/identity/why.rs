//! Why a process has the identity that it has: each selector asked by itself, in words.
//!
//! The kernel decides by tables; this asks the selectors again, one by one, to say what they wanted and
//! what they found. [`Why::identity`] is what the tables say. A further kind of selector is one more arm
//! in [`Asked::found`].

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::HashMap,
    ffi::OsStr,
    fmt::Write as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::{Uid, User};
use ringfence_common::abi::{
    ExecutableKey, Identity,
    identity::{AGENT, HOST, PENDING, is_workload},
};
use ringfence_policy::model::{Identities, Selector, Workload};

use super::{
    Tables,
    executables::HASH_LIMIT,
    file::Executable,
    hash::digest,
    live::{Live, ProgramState},
    matching::{Matcher, Spec},
    mounts::Mounts,
    specificity::{Place, Specificity},
    tree::directory::names,
};

/// One selector against one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorCheck {
    /// Name in a policy document.
    pub key: &'static str,
    /// It matches.
    pub matched: bool,
    /// What it asks for.
    pub wanted: String,
    /// What the process has.
    pub found: String,
}

/// A workload of which a process is, or nearly is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Position among the workloads.
    pub workload: usize,
    /// In the order of the policy document.
    pub checks: Vec<SelectorCheck>,
    /// All of them match.
    pub matched: bool,
    /// Why it is less specific than the one before it; empty for the first and for near misses.
    pub criterion: String,
}

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// What the kernel makes of the process.
    pub identity: Identity,
    /// Why, one sentence.
    pub reason: String,
    /// What is known of the executable; empty where it decides nothing.
    pub executable: String,
    /// Workloads that match, the most specific first, then those that fail in one selector.
    pub candidates: Vec<Candidate>,
    /// What does not fit together, one sentence each.
    pub notes: Vec<String>,
}

/// Asks selectors; remembers files and users for as long as it lives.
#[derive(Default)]
pub struct Asked {
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
    /// With the mounts of this moment.
    #[must_use]
    pub fn new() -> Self {
        Self {
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
    fn near(&mut self, workload: &Workload, live: &Live) -> Option<Candidate> {
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

    fn check(&mut self, selector: &Selector, live: &Live, depth: Depth) -> SelectorCheck {
        let (matched, wanted, found) = self.found(selector, live, depth);
        SelectorCheck {
            key: selector.key(),
            matched,
            wanted,
            found,
        }
    }

    /// Whether it matches, what it wants and what there is.
    fn found(&mut self, selector: &Selector, live: &Live, depth: Depth) -> (bool, String, String) {
        match selector {
            Selector::Cgroup(glob) => {
                let matched = live.cgroup.ancestors().any(|path| glob.is_match(path));
                (matched, glob.glob().glob().to_owned(), shown(&live.cgroup))
            }
            Selector::SystemdUnit(unit) => {
                let found = unit_of(&live.cgroup);
                let matched = found.as_deref() == Some(unit);
                let found = found.unwrap_or_else(|| "none".to_owned());
                (matched, unit.clone(), found)
            }
            Selector::SystemdSlice(slice) => {
                let found = slices_of(&live.cgroup);
                let list = match found.as_slice() {
                    [] => "none".to_owned(),
                    _ => found.join(", "),
                };
                (found.contains(slice), slice.clone(), list)
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
            Selector::Uid(uid) => (live.uid == *uid, uid.to_string(), self.user_name(live.uid)),
            Selector::User(name) => {
                let known = *self
                    .users
                    .entry(name.clone())
                    .or_insert_with(|| uid_of(name));
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
        let path = PathBuf::from(format!("/proc/{}/exe", live.tgid));
        let taken =
            Executable::open(&path, &self.mounts).and_then(|file| digest(&file, HASH_LIMIT));
        let text = match taken {
            Ok(Some(sum)) => Ok(hex(&sum)),
            Ok(None) => Err("none: too large, or on a file system that hides changes".to_owned()),
            Err(error) => Err(format!("none: {error}")),
        };
        let _ = self.digests.insert(key, text.clone());
        text
    }
}

/// What the kernel makes of a process. `root` is the cgroup id of the guarded root.
#[must_use]
pub fn identity_of(live: &Live, tables: &Tables, root: u64) -> Identity {
    if live.tgid == std::process::id() {
        return AGENT;
    }
    tables.resolve(live.cgroup_id, root, live.program.key.as_ref(), live.uid)
}

/// Explains a process under the workloads and tables in force. `root` is the cgroup id of the guarded root.
#[must_use]
pub fn explain(
    live: &Live,
    workloads: &[Workload],
    identities: &Identities,
    tables: &Tables,
    root: u64,
) -> Why {
    let mut asked = Asked::new();
    let found = workloads
        .iter()
        .enumerate()
        .filter_map(|(position, workload)| {
            let near = asked.near(workload, live)?;
            Some(Candidate {
                workload: position,
                ..near
            })
        });
    let (matching, near): (Vec<Candidate>, Vec<Candidate>) =
        found.partition(|candidate| candidate.matched);
    let matching = rank(matching, live, workloads, identities);
    let identity = identity_of(live, tables, root);
    let first = matching
        .first()
        .and_then(|first| workloads.get(first.workload));
    let expected = first.map_or(Some(HOST), |first| identities.get(&first.name).copied());
    let mut notes = Vec::new();
    if (is_workload(identity) || identity == HOST) && expected != Some(identity) {
        notes.push(
            "the selectors, asked anew, say something else than the kernel was told: a file, a cgroup or a \
             user has just changed; ask again"
                .to_owned(),
        );
    }
    Why {
        identity,
        reason: reason(identity, &matching, live, tables),
        executable: executable(live, tables),
        candidates: matching.into_iter().chain(near).collect(),
        notes,
    }
}

/// The most specific first, each with the criterion by which it is behind the one before it.
fn rank(
    candidates: Vec<Candidate>,
    live: &Live,
    workloads: &[Workload],
    identities: &Identities,
) -> Vec<Candidate> {
    let specs: Vec<Spec> = candidates
        .iter()
        .filter_map(|candidate| workloads.get(candidate.workload))
        .filter_map(|workload| Spec::new(workload, identities, uid_of).ok())
        .collect();
    let places: HashMap<usize, Place> = Matcher::new(&specs)
        .map(|matcher| matcher.candidates(&live.cgroup).into_iter().collect())
        .unwrap_or_default();
    let mut ranked: Vec<(Specificity, Candidate)> = specs
        .iter()
        .zip(candidates)
        .enumerate()
        .map(|(number, (spec, candidate))| {
            let place = places.get(&number).copied().unwrap_or_default();
            (Specificity::new(&spec.condition, place), candidate)
        })
        .collect();
    ranked.sort_by_key(|(specificity, _)| Reverse(*specificity));
    let mut before: Option<Specificity> = None;
    for (specificity, candidate) in &mut ranked {
        if let Some(before) = before {
            candidate.criterion = specificity.less_because(&before);
        }
        before = Some(*specificity);
    }
    ranked.into_iter().map(|(_, candidate)| candidate).collect()
}

fn reason(identity: Identity, matching: &[Candidate], live: &Live, tables: &Tables) -> String {
    let known = tables.cgroups.get(&live.cgroup_id);
    match (identity, matching.len(), known) {
        (AGENT, _, _) => "it is the agent itself, which no policy concerns".to_owned(),
        (PENDING, _, None) => {
            "its cgroup is not known to the agent yet, and a workload may be meant: what it sends is held".to_owned()
        }
        (PENDING, _, Some(_)) => {
            "its executable has not been judged yet, and workloads are told apart by it here: what it sends is held"
                .to_owned()
        }
        (HOST, 0, _) => "no workload matches".to_owned(),
        (HOST, _, _) => "the kernel was told of no workload that matches".to_owned(),
        (workload, 0, _) if is_workload(workload) => {
            "the kernel was told so; no workload matches any more".to_owned()
        }
        (workload, 1, _) if is_workload(workload) => "the only workload that matches".to_owned(),
        (workload, number, _) if is_workload(workload) => {
            format!("the most specific of {number} workloads that match")
        }
        (_, _, None) => "its cgroup is not known".to_owned(),
        (_, _, Some(_)) if live.program.key.is_none() => {
            "its executable can't be read, and workloads are told apart by it here".to_owned()
        }
        (_, _, Some(_)) => {
            "workloads that match are tied, so that none of them may be believed: make one more specific".to_owned()
        }
    }
}

/// What is known of the executable, where workloads of the cgroup are told apart by it.
fn executable(live: &Live, tables: &Tables) -> String {
    let matters = tables
        .cgroups
        .get(&live.cgroup_id)
        .is_some_and(|entry| entry.class != 0);
    let Some(key) = live.program.key.filter(|_| matters) else {
        return String::new();
    };
    if key == ExecutableKey::FOREIGN {
        return "on a file system that a user answers for: no `exe` or `sha256` selector matches it".to_owned();
    }
    match tables.executables.get(&key) {
        Some(0) => "judged: no selector names it".to_owned(),
        Some(_) => "judged: selectors name it".to_owned(),
        None => "not judged: that happens when it is started or first uses the network; if it stays so, the agent \
                 does not find the file that the kernel sees (docs/identity.md, Limits)"
            .to_owned(),
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

/// The first component after the slices; below it names are delegated. As systemd's `cg_path_get_unit`.
fn unit_of(path: &Path) -> Option<String> {
    let unit = names(path).find(|name| !is_slice(name))?;
    Some(bare(unit))
}

fn slices_of(path: &Path) -> Vec<String> {
    names(path)
        .take_while(|name| is_slice(name))
        .map(bare)
        .collect()
}

fn is_slice(name: &OsStr) -> bool {
    name.as_bytes().ends_with(b".slice")
}

/// systemd escapes a name that could be taken for a file of the kernel with `_`.
fn bare(name: &OsStr) -> String {
    let bytes = name.as_bytes();
    let bytes = bytes.strip_prefix(b"_").unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

const fn cost(selector: &Selector) -> u8 {
    match selector {
        Selector::Sha256(_) => 2,
        Selector::Exe(_) => 1,
        _ => 0,
    }
}

fn uid_of(name: &str) -> Option<u32> {
    User::from_name(name)
        .ok()
        .flatten()
        .map(|user| user.uid.as_raw())
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
