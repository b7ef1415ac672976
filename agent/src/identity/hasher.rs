//! Hashes executables on a thread of its own, so that a large one keeps nobody waiting.
//!
//! Files are read in slices. [`Asker`]s take turns, each has a bounded rate, and a file that has just been changed waits
//! without keeping others waiting. Of the files of one asker a slice goes to the one of which least is left, so that small
//! files are done first; every eighth to the one that waits longest, so that each is done some day.

mod accounts;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Bound,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use ringfence_common::abi::ExecutableKey;
use tokio::sync::Notify;

use self::accounts::Accounts;
use super::{
    Asker,
    hash::{Digest, Hashing},
};

/// Files at most that wait, are read or whose outcome was not taken; each has two descriptors open.
/// What finds no room is asked again by the next packet.
const MOST: usize = 256;
/// Of so many slices of one asker one goes to the file that waits longest.
const FAIR: u64 = 8;

/// Outcome for one file.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The file.
    pub key: ExecutableKey,
    /// User whose it is.
    pub owner: u32,
    /// Its digest, or why it can't be judged.
    pub digest: io::Result<Digest>,
}

/// A handle of the thread, which ends with the last one.
#[derive(Clone, Debug)]
pub(super) struct Hasher(Arc<Owner>);

#[derive(Debug)]
struct Owner(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    done: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    /// None is empty.
    lines: BTreeMap<Asker, Line>,
    accounts: Accounts,
    /// Who had the last turn.
    last: Option<Asker>,
    /// Keys of all that were asked for and not taken.
    asked: BTreeSet<ExecutableKey>,
    outcomes: Vec<Outcome>,
    closed: bool,
}

/// The files of one asker that wait for a turn.
#[derive(Debug, Default)]
struct Line {
    waiting: Vec<Hashing>,
    turn: u64,
}

/// What to do next.
#[derive(Debug)]
enum Turn {
    Read(Asker, Hashing),
    /// Nothing before this time is over.
    Wait(Duration),
    /// Nothing waits.
    Rest,
}

impl Hasher {
    /// Starts the thread, which reads `rate` bytes a second for each asker, and `burst` bytes of them at once.
    ///
    /// # Errors
    /// The system has no room for one more thread.
    pub fn start(rate: u64, burst: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(Accounts::new(rate, burst))),
            work: Condvar::new(),
            done: Arc::default(),
        });
        let worker = Arc::clone(&shared);
        let _detached = thread::Builder::new()
            .name("hasher".to_owned())
            .spawn(move || worker.run())?;
        Ok(Self(Arc::new(Owner(shared))))
    }

    /// Is notified whenever there are outcomes to take.
    pub fn done(&self) -> Arc<Notify> {
        Arc::clone(&self.0.0.done)
    }

    /// Whether a file was asked for and its outcome not taken.
    pub fn is_asked(&self, key: &ExecutableKey) -> bool {
        self.0.0.lock().asked.contains(key)
    }

    /// Asks for a file, unless it was asked for; `false` where there is no room. A file takes the place of one of whoever
    /// asked for most, and of his own one that is smaller the place of the largest, so that many large ones don't shut
    /// it out.
    pub fn ask(&self, hashing: Hashing, asker: Asker) -> bool {
        let mut state = self.0.0.lock();
        let key = hashing.key();
        if state.asked.contains(&key) {
            return true;
        }
        if state.asked.len() >= MOST && !state.make_room(asker, hashing.left()) {
            return false;
        }
        let _ = state.asked.insert(key);
        state.insert(asker, hashing);
        self.0.0.work.notify_one();
        true
    }

    /// Takes what is done.
    pub fn take(&self) -> Vec<Outcome> {
        let mut state = self.0.0.lock();
        let outcomes = std::mem::take(&mut state.outcomes);
        for outcome in &outcomes {
            let _ = state.asked.remove(&outcome.key);
        }
        outcomes
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.work.notify_one();
    }
}

impl Shared {
    /// Every change of the state is complete in itself, so one who panicked left it whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some((asker, mut hashing)) = self.next() {
            let before = hashing.left();
            let advanced = hashing.advance();
            let (key, owner) = (hashing.key(), hashing.owner());
            let bytes = before.saturating_sub(hashing.left());
            let mut state = self.lock();
            state.accounts.charge(asker, bytes, Instant::now());
            match advanced {
                Ok(None) => state.insert(asker, hashing),
                digest => state.outcomes.push(Outcome { key, owner, digest }),
            }
            if !state.outcomes.is_empty() {
                self.done.notify_one();
            }
        }
    }

    /// Waits for the file whose turn it is; `None` at the end.
    fn next(&self) -> Option<(Asker, Hashing)> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            state = match state.choose(Instant::now(), SystemTime::now()) {
                Turn::Read(asker, hashing) => return Some((asker, hashing)),
                Turn::Wait(time) => {
                    let woken = self.work.wait_timeout(state, time);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                Turn::Rest => self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl State {
    const fn new(accounts: Accounts) -> Self {
        Self {
            lines: BTreeMap::new(),
            accounts,
            last: None,
            asked: BTreeSet::new(),
            outcomes: Vec::new(),
            closed: false,
        }
    }

    fn insert(&mut self, asker: Asker, hashing: Hashing) {
        self.lines.entry(asker).or_default().waiting.push(hashing);
    }

    /// Drops the file of which most is left: of the longest line, or of this asker's where that is as long and more
    /// is left of it.
    fn make_room(&mut self, asker: Asker, left: u64) -> bool {
        let length = |line: &Line| line.waiting.len();
        let longest = self.lines.iter().max_by_key(|(_, line)| length(line));
        let Some((&whose, most)) = longest.map(|(whose, line)| (whose, length(line))) else {
            return false;
        };
        let own = self.lines.get(&asker).map_or(0, length);
        let (from, more_than) = if most > own {
            (whose, None)
        } else {
            (asker, Some(left))
        };
        let waiting = self.lines.get(&from).into_iter().flat_map(|l| &l.waiting);
        let largest = waiting.enumerate().max_by_key(|(_, file)| file.left());
        let Some((place, _)) =
            largest.filter(|(_, file)| more_than.is_none_or(|left| file.left() > left))
        else {
            return false;
        };
        let dropped = self.take(from, place);
        dropped.is_some_and(|dropped| self.asked.remove(&dropped.key()))
    }

    /// Takes a file of whoever comes after the one who had the last turn.
    fn choose(&mut self, now: Instant, wall: SystemTime) -> Turn {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut wait: Option<Duration> = None;
        let mut chosen = None;
        let later = self.lines.range((after, Bound::Unbounded));
        for (asker, line) in later.chain(&self.lines) {
            let left = line.wait(wall).max(self.accounts.wait(*asker, now));
            if left.is_zero() {
                chosen = Some(*asker);
                break;
            }
            wait = Some(wait.map_or(left, |least| least.min(left)));
        }
        let Some(asker) = chosen else {
            return wait.map_or(Turn::Rest, Turn::Wait);
        };
        self.last = Some(asker);
        let place = self
            .lines
            .get_mut(&asker)
            .and_then(|line| line.choose(wall));
        let hashing = place.and_then(|place| self.take(asker, place));
        hashing.map_or(Turn::Wait(Duration::ZERO), |hashing| {
            Turn::Read(asker, hashing)
        })
    }

    fn take(&mut self, asker: Asker, place: usize) -> Option<Hashing> {
        let line = self.lines.get_mut(&asker)?;
        let taken = (place < line.waiting.len()).then(|| line.waiting.swap_remove(place));
        if line.waiting.is_empty() {
            let _ = self.lines.remove(&asker);
        }
        taken
    }
}

impl Line {
    /// How long until a file may be read: what has just changed may change once more without being seen.
    fn wait(&self, wall: SystemTime) -> Duration {
        let times = self
            .waiting
            .iter()
            .map(|file| file.unsettled(wall).unwrap_or_default());
        times.min().unwrap_or_default()
    }

    /// The place of the file whose turn it is.
    fn choose(&mut self, wall: SystemTime) -> Option<usize> {
        self.turn += 1;
        let numbered = self.waiting.iter().enumerate();
        let settled = numbered.filter(|(_, file)| file.unsettled(wall).is_none());
        let chosen = if self.turn.is_multiple_of(FAIR) {
            settled.min_by_key(|(_, file)| file.asked())
        } else {
            settled.min_by_key(|(_, file)| (file.left(), file.asked()))
        };
        chosen.map(|(place, _)| place)
    }
}
