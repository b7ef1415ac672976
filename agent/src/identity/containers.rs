//! Containers: cgroups that a container runtime answers for.
//!
//! Runtimes put the id of a container, 64 hexadecimal digits, into the name of its cgroup. That name alone
//! says nothing: the runtime is asked what the id stands for, and believed only where the container's
//! init process is in that cgroup. Until it has answered, the cgroup is [`Container::Asked`], and no
//! process in it is taken for anybody.
//!
//! Only cgroups that root alone could create are asked about: the directory above belongs to root. So
//! a user with a delegated subtree can neither pass for a container nor keep the runtimes busy.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::tree::directory::names;

/// What a runtime says of a container, by the selector's key: `container.name`, `k8s.pod-label.app`.
pub type ContainerFacts = BTreeMap<String, String>;

/// Digits of a container's id.
const ID_DIGITS: usize = 64;
/// A question is asked again after this time, then after twice the time, and so on.
const FIRST_RETRY: Duration = Duration::from_millis(20);
/// Longest time between two questions.
const LAST_RETRY: Duration = Duration::from_secs(1);
/// A runtime may know a container only after its cgroup exists: for this long "no" is not believed.
const SETTLE: Duration = Duration::from_secs(2);
/// How often a cgroup that is no container is asked about: a runtime may have started since.
const RECHECK: Duration = Duration::from_secs(30);

/// A question for the runtimes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerQuestion {
    /// The cgroup.
    pub cgroup: u64,
    /// Id of the container, 64 lower-case hexadecimal digits.
    pub id: String,
}

/// What the runtimes answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerAnswer {
    /// It is one, and its init process is in the cgroup that was asked about.
    Is(ContainerFacts),
    /// No runtime knows it, or its init process is elsewhere.
    IsNot,
    /// It is not started yet, or a runtime does not answer.
    NotNow,
}

/// What is known of the container that a cgroup belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container<'f> {
    /// It belongs to none.
    No,
    /// A runtime is asked.
    Asked,
    /// The runtime has said.
    Is(&'f ContainerFacts),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Asked,
    Is(ContainerFacts),
    Not,
}

#[derive(Debug)]
struct Known {
    path: PathBuf,
    id: String,
    state: State,
    since: Instant,
    /// Time to the next question.
    pause: Duration,
}

/// Every cgroup that may be a container's.
#[derive(Debug, Default)]
pub(super) struct Containers {
    known: HashMap<u64, Known>,
    by_path: HashMap<PathBuf, u64>,
    due: BTreeSet<(Instant, u64)>,
    /// What an earlier process was told of cgroups that were not seen yet.
    remembered: BTreeMap<u64, ContainerFacts>,
}

impl Containers {
    /// A cgroup is there; `trusted` says whether only root can have created it.
    pub fn appeared(&mut self, cgroup: u64, path: &Path, trusted: bool, now: Instant) {
        let Some((prefix, id)) = container_of(path).filter(|(prefix, _)| *prefix == path) else {
            return;
        };
        if self.known.contains_key(&cgroup) {
            return;
        }
        let state = match self.remembered.remove(&cgroup) {
            Some(facts) => State::Is(facts),
            None if trusted => State::Asked,
            None => State::Not,
        };
        if state == State::Asked {
            let _ = self.due.insert((now, cgroup));
        }
        let _ = self.by_path.insert(prefix.to_owned(), cgroup);
        let known = Known {
            path: prefix.to_owned(),
            id,
            state,
            since: now,
            pause: FIRST_RETRY,
        };
        let _ = self.known.insert(cgroup, known);
    }

    /// A cgroup is gone.
    pub fn gone(&mut self, cgroup: u64) {
        if let Some(known) = self.known.remove(&cgroup)
            && self.by_path.get(&known.path) == Some(&cgroup)
        {
            let _ = self.by_path.remove(&known.path);
        }
    }

    /// Forgets every cgroup that is not there any more.
    pub fn retain(&mut self, is_there: impl Fn(u64) -> bool) {
        let gone: Vec<u64> = self
            .known
            .keys()
            .copied()
            .filter(|cgroup| !is_there(*cgroup))
            .collect();
        for cgroup in gone {
            self.gone(cgroup);
        }
    }

    /// What is known of the container that the cgroup at a path belongs to.
    pub fn of(&self, path: &Path) -> Container<'_> {
        let Some((prefix, _)) = container_of(path) else {
            return Container::No;
        };
        let known = self.by_path.get(prefix).and_then(|id| self.known.get(id));
        match known.map(|known| &known.state) {
            Some(State::Is(facts)) => Container::Is(facts),
            Some(State::Not) => Container::No,
            Some(State::Asked) | None => Container::Asked,
        }
    }

    /// The questions to ask now, at most `most`. Each is asked again until it is answered.
    pub fn due(&mut self, now: Instant, most: usize) -> Vec<ContainerQuestion> {
        let mut questions = Vec::new();
        while questions.len() < most {
            let Some((at, cgroup)) = self.due.first().copied().filter(|(at, _)| *at <= now) else {
                break;
            };
            let _ = self.due.remove(&(at, cgroup));
            if let Some(known) = self.known.get_mut(&cgroup) {
                questions.push(ContainerQuestion {
                    cgroup,
                    id: known.id.clone(),
                });
            }
        }
        questions
    }

    /// When the next question is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes an answer; returns the path whose cgroups are someone else now.
    pub fn answered(
        &mut self,
        cgroup: u64,
        answer: ContainerAnswer,
        now: Instant,
    ) -> Option<PathBuf> {
        let known = self.known.get_mut(&cgroup)?;
        let early = now.saturating_duration_since(known.since) < SETTLE;
        let (state, again) = match answer {
            ContainerAnswer::Is(facts) => (State::Is(facts), None),
            ContainerAnswer::IsNot if !early => (State::Not, Some(RECHECK)),
            ContainerAnswer::IsNot | ContainerAnswer::NotNow => {
                let pause = known.pause;
                known.pause = (pause * 2).min(LAST_RETRY);
                // What was taken for no container stays that until a runtime says otherwise.
                (known.state.clone(), Some(pause))
            }
        };
        if let Some(pause) = again {
            let _ = self.due.insert((now + pause, cgroup));
        }
        if known.state == state {
            return None;
        }
        known.state = state;
        Some(known.path.clone())
    }

    /// Paths of the cgroups that wait for an answer.
    pub fn waiting(&self) -> impl Iterator<Item = &Path> {
        self.known
            .values()
            .filter(|known| known.state == State::Asked)
            .map(|known| known.path.as_path())
    }

    /// What the runtimes have said, by cgroup.
    pub fn facts(&self) -> BTreeMap<u64, ContainerFacts> {
        let known = self.known.iter();
        known
            .filter_map(|(cgroup, known)| match &known.state {
                State::Is(facts) => Some((*cgroup, facts.clone())),
                State::Asked | State::Not => None,
            })
            .collect()
    }

    /// The same by path, for display.
    pub fn facts_by_path(&self) -> BTreeMap<PathBuf, ContainerFacts> {
        let known = self.known.values();
        known
            .filter_map(|known| match &known.state {
                State::Is(facts) => Some((known.path.clone(), facts.clone())),
                State::Asked | State::Not => None,
            })
            .collect()
    }

    /// Takes what an earlier process was told, for cgroups that come up from now on.
    pub fn remember(&mut self, facts: BTreeMap<u64, ContainerFacts>) {
        self.remembered = facts;
    }
}

/// The topmost cgroup on a path whose name holds the id of a container: what lies below belongs to it.
pub(super) fn container_of(path: &Path) -> Option<(&Path, String)> {
    let name = names(path).position(|name| id_in(name.as_bytes()).is_some())?;
    let prefix = path.ancestors().nth(names(path).count() - name - 1)?;
    let id = id_in(prefix.file_name()?.as_bytes())?;
    Some((prefix, id))
}

/// Exactly 64 hexadecimal digits in a row.
fn id_in(name: &[u8]) -> Option<String> {
    name.split(|byte| !byte.is_ascii_alphanumeric())
        .find(|word| {
            word.len() == ID_DIGITS
                && word
                    .iter()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
        .map(|word| String::from_utf8_lossy(word).into_owned())
}
