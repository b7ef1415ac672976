//! Which process is asked about next, when there are more questions than answers.
//!
//! Anybody can run any number of executables that were never seen, and so ask any number of questions. So everybody has
//! a line of his own, and the lines take turns: who asks much waits for himself. What somebody waits for (a call is held)
//! goes before what is only a hint (a program was started, and may connect some day).
//!
//! Invariants: a process is asked about once at a time for each executable; never more than [`MOST`] questions are kept,
//! and what goes beyond is taken from the longest line, hints first.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
};

use ringfence_common::abi::{Event, ExecutableKey, Owner, event};

use crate::identity::Subordinates;

#[cfg(test)]
mod tests;

/// Questions that are kept at most; one that is dropped is asked again by the next packet.
const MOST: usize = 4096;

/// A process that the kernel can't tell who it is: its executable is not judged yet, or its cgroup was not
/// known when it was asked for its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its executable.
    pub key: ExecutableKey,
    /// Its number.
    pub tgid: u32,
    /// Its cgroup.
    pub cgroup: u64,
    /// What the kernel took for its process class, 0 = it knew none.
    pub class: u32,
}

/// How soon an answer is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// A call is held.
    Held,
    /// A program was started.
    Hint,
}

impl Urgency {
    /// As metrics show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Hint => "hint",
        }
    }
}

/// Whose line a question waits in: a user's, or that of root in one cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asker {
    /// Real user, or the one whose subordinate id that is.
    User(u32),
    /// Cgroup of a process of root.
    Root(u64),
}

impl Asker {
    /// Whose a question about this process is.
    #[must_use]
    pub fn of(owner: &Owner, subordinates: &Subordinates) -> Self {
        match owner.uid {
            0 => Self::Root(owner.cgroup),
            uid => Self::User(subordinates.holder(uid)),
        }
    }
}

/// All questions that wait.
#[derive(Debug, Default)]
pub struct Questions {
    held: Lines,
    hints: Lines,
    /// Where the question about a process is.
    places: HashMap<(ExecutableKey, u32), Place>,
    asked: u64,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    urgency: Urgency,
    asker: Asker,
    number: u64,
}

impl Question {
    /// What a record asks, and how soon the answer is needed; `None` where it asks nothing.
    #[must_use]
    pub fn of(record: &Event) -> Option<(Self, Urgency)> {
        let urgency = match record.kind {
            event::PENDING => Urgency::Held,
            event::EXEC => Urgency::Hint,
            _ => return None,
        };
        let owner = &record.owner;
        let question = Self {
            key: owner.executable,
            tgid: owner.tgid,
            cgroup: owner.cgroup,
            class: owner.class,
        };
        Some((question, urgency))
    }
}

impl Questions {
    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Adds a question, in the place of the same one; answers what was dropped for lack of room.
    pub fn ask(&mut self, question: Question, urgency: Urgency, asker: Asker) -> Option<Urgency> {
        let about = (question.key, question.tgid);
        let same = self.places.get(&about).copied();
        let place = match same {
            Some(place) if place.urgency == Urgency::Held || urgency == Urgency::Hint => place,
            _ => {
                self.asked += 1;
                Place {
                    urgency,
                    asker,
                    number: self.asked,
                }
            }
        };
        if let Some(hint) = same.filter(|same| same.number != place.number) {
            let _ = self.hints.remove(hint.asker, hint.number);
        }
        let lines = self.lines(place.urgency);
        lines.insert(place.asker, place.number, question);
        let _ = self.places.insert(about, place);
        if self.places.len() <= MOST {
            return None;
        }
        let (dropped, urgency) = match self.hints.cut() {
            Some(hint) => (hint, Urgency::Hint),
            None => (self.held.cut()?, Urgency::Held),
        };
        let _ = self.places.remove(&(dropped.key, dropped.tgid));
        Some(urgency)
    }

    /// Takes the next question: what is held before hints, the askers in turn, of each the one that waits longest.
    pub fn next(&mut self) -> Option<Question> {
        let next = self.held.next().or_else(|| self.hints.next())?;
        let _ = self.places.remove(&(next.key, next.tgid));
        Some(next)
    }

    fn lines(&mut self, urgency: Urgency) -> &mut Lines {
        match urgency {
            Urgency::Held => &mut self.held,
            Urgency::Hint => &mut self.hints,
        }
    }
}

/// One line for each asker; none is empty.
#[derive(Debug, Default)]
struct Lines {
    by_asker: BTreeMap<Asker, BTreeMap<u64, Question>>,
    /// The lines by their length.
    lengths: BTreeSet<(usize, Asker)>,
    /// Who had the last turn.
    last: Option<Asker>,
}

impl Lines {
    fn insert(&mut self, asker: Asker, number: u64, question: Question) {
        let _same = self.change(asker, |line| line.insert(number, question));
    }

    fn remove(&mut self, asker: Asker, number: u64) -> Option<Question> {
        self.change(asker, |line| line.remove(&number))
    }

    /// Takes the first question of whoever comes after the one who had the last turn.
    fn next(&mut self) -> Option<Question> {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut later = self.by_asker.range((after, Bound::Unbounded));
        let (asker, _) = later.next().or_else(|| self.by_asker.first_key_value())?;
        let asker = *asker;
        self.last = Some(asker);
        self.first_of(asker)
    }

    /// Takes the oldest of the longest line: whoever asked that has most likely asked again, or ended.
    fn cut(&mut self) -> Option<Question> {
        let (_, asker) = self.lengths.last()?;
        self.first_of(*asker)
    }

    fn first_of(&mut self, asker: Asker) -> Option<Question> {
        self.change(asker, |line| line.pop_first().map(|(_, question)| question))
    }

    fn change<T>(
        &mut self,
        asker: Asker,
        change: impl FnOnce(&mut BTreeMap<u64, Question>) -> T,
    ) -> T {
        let line = self.by_asker.entry(asker).or_default();
        let before = line.len();
        let outcome = change(line);
        let after = line.len();
        let _ = self.lengths.remove(&(before, asker));
        if after == 0 {
            let _ = self.by_asker.remove(&asker);
        } else {
            let _ = self.lengths.insert((after, asker));
        }
        outcome
    }
}
