//! Why a process has the identity that it has: each selector asked by itself, in words.
//!
//! The kernel decides by tables; this asks the selectors again, one by one, to say what they wanted and
//! what they found. [`Why::identity`] is what the tables say.

mod ask;
#[cfg(test)]
mod tests;

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use ringfence_common::abi::{
    ExecutableKey, Identity,
    identity::{AGENT, HOST, PENDING, UNKNOWN, is_workload},
};
use ringfence_policy::model::{Identities, Workload};

pub use ask::{Asked, Depth, SelectorCheck};

use super::{
    Crowd, Tables, groups,
    live::{Live, ProgramState},
    matching::Matcher,
    names,
    spec::Spec,
    specificity::{Place, Specificity},
};

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

/// What the kernel makes of a process. `root` is the cgroup id of the guarded root.
#[must_use]
pub fn identity_of(live: &Live, tables: &Tables, root: u64) -> Identity {
    if live.tgid == std::process::id() {
        return AGENT;
    }
    let exe = live.program.key.as_ref();
    tables.resolve(live.cgroup_id, root, exe, live.uid, &live.groups)
}

/// Explains a process under the workloads and tables in force. `root` is the cgroup id of the guarded root;
/// `asked` knows how much may be read.
#[must_use]
pub fn explain(
    mut asked: Asked,
    live: &Live,
    workloads: &[Arc<Workload>],
    identities: &Identities,
    tables: &Tables,
    root: u64,
) -> Why {
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
    let crowd = (identity == UNKNOWN)
        .then(|| crowd(live, workloads, identities))
        .flatten();
    let reason = match crowd {
        Some(crowd) => format!("{crowd}: none of them may be believed there"),
        None => reason(
            identity,
            &matching,
            live,
            tables,
            first.map_or("host", |first| &first.name),
        ),
    };
    Why {
        identity,
        reason,
        executable: executable(live, tables),
        candidates: matching.into_iter().chain(near).collect(),
        notes,
    }
}

/// The most specific first, each with the criterion by which it is behind the one before it.
fn rank(
    candidates: Vec<Candidate>,
    live: &Live,
    workloads: &[Arc<Workload>],
    identities: &Identities,
) -> Vec<Candidate> {
    let specs: Vec<Spec> = candidates
        .iter()
        .filter_map(|candidate| workloads.get(candidate.workload))
        .filter_map(|workload| Spec::new(workload, identities, names::user, names::group).ok())
        .collect();
    let places: HashMap<usize, Place> = Matcher::new(&specs)
        .map(|matcher| {
            let found = matcher.candidates(&live.cgroup, live.container.as_ref());
            found.into_iter().collect()
        })
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

/// The workloads that ask for more groups in the process's cgroup than can be told apart, if they do.
fn crowd(live: &Live, workloads: &[Arc<Workload>], identities: &Identities) -> Option<Crowd> {
    let specs: Vec<Spec> = workloads
        .iter()
        .filter_map(|workload| Spec::new(workload, identities, names::user, names::group).ok())
        .filter(Spec::is_possible)
        .collect();
    let matcher = Matcher::new(&specs).ok()?;
    let here = matcher.candidates(&live.cgroup, live.container.as_ref());
    let here = here.iter().filter_map(|(number, _)| specs.get(*number));
    let everywhere = specs.iter().filter(|spec| spec.is_everywhere());
    let (workloads, groups) = groups::asked(here.chain(everywhere)).err()?;
    Some(Crowd {
        workloads,
        groups,
        cgroup: live.cgroup.display().to_string(),
    })
}

/// `expected` is who it is by the selectors.
fn reason(
    identity: Identity,
    matching: &[Candidate],
    live: &Live,
    tables: &Tables,
    expected: &str,
) -> String {
    let known = tables.cgroups.get(&live.cgroup_id);
    match (identity, matching.len(), known) {
        (AGENT, _, _) => "it is the agent itself, which no policy concerns".to_owned(),
        (PENDING, _, Some(entry)) if entry.identity == PENDING => {
            "its container is not known: no runtime has said yet what it is; what it sends is held"
                .to_owned()
        }
        (PENDING, _, None) => {
            "its cgroup is not known to the agent yet, and a workload may be meant: what it sends is held".to_owned()
        }
        (PENDING, _, Some(_)) => {
            let why = if live.program.state == ProgramState::Deleted {
                "the file that it runs was replaced or removed since it was started, and has not been judged anew"
            } else {
                "its executable has not been judged yet, and workloads are told apart by it here"
            };
            format!(
                "{why}: what a new socket of it sends is held until it is judged, which that brings about; by the \
                 selectors it will be {expected}"
            )
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
        None if live.program.state == ProgramState::Deleted => {
            "not judged since it was replaced or removed: that happens when the process next uses the network; restart the \
             process to run the file that is at the path now"
                .to_owned()
        }
        None => "not judged: that happens when it is started or first uses the network; if it stays so, the agent \
                 does not find the file that the kernel sees (docs/identity.md, Limits)"
            .to_owned(),
    }
}
