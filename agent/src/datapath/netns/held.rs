//! One socket, or whatever is opened inside, for each network namespace in use.
//!
//! What is not used for a while is dropped: it keeps its namespace alive. Blocks: not at all where the namespace
//! is known, else for as long as a walk over /proc takes.

use std::{
    collections::{HashMap, HashSet},
    io,
    time::{Duration, Instant},
};

use super::{Namespace, NamespaceId, cookie, inside, others};

/// Namespaces held at most.
const MAX_HELD: usize = 1024;
/// A namespace not used for so long is let go.
pub const IDLE: Duration = Duration::from_secs(10);
/// How long a namespace that was not found is not looked for again.
const ABSENT: Duration = Duration::from_secs(1);

/// Why a namespace can't be used.
#[derive(Debug)]
pub enum SearchError {
    /// The namespaces can't be listed.
    List(io::Error),
    /// A namespace can't be entered, and it may be the one that was asked for.
    Enter(io::Error),
}

/// What was opened in another namespace.
#[derive(Debug)]
pub struct Held<T> {
    pub opened: T,
    id: NamespaceId,
    pub used: Instant,
}

/// What is opened in each namespace, by its cookie.
#[derive(Debug)]
pub struct HeldOpen<T> {
    open: fn() -> io::Result<T>,
    pub own_cookie: u64,
    pub own: T,
    pub held: HashMap<u64, Held<T>>,
    pub absent: HashMap<u64, Instant>,
}

impl<T: Send> HeldOpen<T> {
    /// One whose own namespace is the calling thread's; `open` runs inside each.
    ///
    /// # Errors
    /// The kernel's, of the own namespace.
    pub fn new(open: fn() -> io::Result<T>) -> io::Result<Self> {
        Ok(Self {
            own_cookie: cookie()?,
            own: open()?,
            open,
            held: HashMap::new(),
            absent: HashMap::new(),
        })
    }

    /// What is open in the namespace with this cookie; `None` where no process and no mount stands for it.
    ///
    /// # Errors
    /// [`SearchError`].
    pub fn get(&mut self, netns: u64) -> Result<Option<&mut T>, SearchError> {
        self.release_unused();
        if netns == self.own_cookie {
            return Ok(Some(&mut self.own));
        }
        if !self.held.contains_key(&netns) {
            self.absent.retain(|_, at| at.elapsed() < ABSENT);
            if self.absent.contains_key(&netns) {
                return Ok(None);
            }
            self.search(Some(netns))?;
        }
        let Some(held) = self.held.get_mut(&netns) else {
            let _ = self.absent.insert(netns, Instant::now());
            return Ok(None);
        };
        held.used = Instant::now();
        Ok(Some(&mut held.opened))
    }

    /// Lets go of namespaces that were not used for [`IDLE`]. Call it now and then: each [`Self::get`] does it
    /// too.
    pub fn release_unused(&mut self) {
        self.held.retain(|_, held| held.used.elapsed() < IDLE);
    }

    /// Opens every namespace that is not held yet, so that one walk serves a whole batch.
    ///
    /// # Errors
    /// [`SearchError`]; [`SearchError::Enter`] only where the one that is `wanted` was not found.
    pub fn search(&mut self, wanted: Option<u64>) -> Result<(), SearchError> {
        let known: HashSet<_> = self.held.values().map(|held| held.id).collect();
        let new = others(|id| known.contains(&id)).map_err(SearchError::List)?;
        let open = |namespace: &Namespace| {
            let id = namespace.id;
            Ok((cookie()?, id, (self.open)()?))
        };
        let found = inside(&new, open).map_err(SearchError::Enter)?;
        let mut failed = None;
        for result in found {
            match result {
                Ok((cookie, id, opened)) => {
                    if self.held.len() < MAX_HELD || wanted == Some(cookie) {
                        let used = Instant::now();
                        let _ = self.held.insert(cookie, Held { opened, id, used });
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
        match (wanted, failed) {
            (Some(wanted), Some(error)) if !self.held.contains_key(&wanted) => {
                Err(SearchError::Enter(error))
            }
            _ => Ok(()),
        }
    }
}
