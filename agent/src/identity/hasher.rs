//! Hashes executables on a thread of its own, so that a large one keeps nobody waiting.
//!
//! Files are read in slices. Each slice goes to the file of which least is left, so that small files are
//! done first; every eighth to the one that waits longest, so that each is done some day.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use ringfence_common::abi::ExecutableKey;
use tokio::sync::Notify;

use super::hash::{Digest, Hashing};

/// Files at most that wait, are read or whose outcome was not taken; each has two descriptors open.
/// What finds no room is asked again by the next packet.
const MOST: usize = 256;
/// Of so many slices one goes to the file that waits longest.
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

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    done: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Hashing>,
    /// Keys of all that were asked for and not taken.
    asked: BTreeSet<ExecutableKey>,
    outcomes: Vec<Outcome>,
    turn: u64,
    closed: bool,
}

impl Hasher {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no room for one more thread.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
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

    /// Asks for a file, unless it was asked for; `false` where there is no room. A smaller file takes the
    /// place of the one of which most is left, so that many large ones don't shut it out.
    pub fn ask(&self, hashing: Hashing) -> bool {
        let mut state = self.0.0.lock();
        let key = hashing.key();
        if state.asked.contains(&key) {
            return true;
        }
        if state.asked.len() >= MOST && !state.make_room(hashing.left()) {
            return false;
        }
        let _ = state.asked.insert(key);
        state.waiting.push(hashing);
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
        while let Some(mut hashing) = self.next() {
            let advanced = hashing.advance();
            let (key, owner) = (hashing.key(), hashing.owner());
            let mut state = self.lock();
            match advanced {
                Ok(None) => state.waiting.push(hashing),
                digest => state.outcomes.push(Outcome { key, owner, digest }),
            }
            if !state.outcomes.is_empty() {
                self.done.notify_one();
            }
        }
    }

    /// Waits for the file whose turn it is; `None` at the end.
    fn next(&self) -> Option<Hashing> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(turn) = state.choose() {
                return Some(state.waiting.swap_remove(turn));
            }
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    /// Drops the file of which most is left, if that is more than this.
    fn make_room(&mut self, left: u64) -> bool {
        let waiting = self.waiting.iter().enumerate();
        let most = waiting.max_by_key(|(_, hashing)| hashing.left());
        let Some((place, _)) = most.filter(|(_, hashing)| hashing.left() > left) else {
            return false;
        };
        let dropped = self.waiting.swap_remove(place);
        self.asked.remove(&dropped.key())
    }

    fn choose(&mut self) -> Option<usize> {
        self.turn += 1;
        let numbered = self.waiting.iter().enumerate();
        let chosen = if self.turn.is_multiple_of(FAIR) {
            numbered.min_by_key(|(_, hashing)| hashing.asked())
        } else {
            numbered.min_by_key(|(_, hashing)| (hashing.left(), hashing.asked()))
        };
        chosen.map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests;
