//! The task that owns the log and the table of live flows, and the handle to it.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, OnceLock, atomic::Ordering},
};

use thiserror::Error;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::{Counters, Listing, Live, Record, live::Table};

/// Commands that wait for the store at most; a record that does not fit is lost and counted.
const QUEUE: usize = 65_536;
/// Records that a follower may lag behind before it loses some.
const FOLLOW: usize = 8192;
/// Requests to the reader that wait at most; whoever asks then waits, too.
const REQUESTS: usize = 16;
/// Commands taken from the queue at once.
const BATCH: usize = 256;

/// A record and its position in the log.
#[derive(Clone, Debug)]
pub struct Numbered {
    /// Position, from 1; a gap is a loss.
    pub sequence: u64,
    /// The record.
    pub record: Arc<Record>,
}

/// The log at one moment, and what comes after it: no record is missing between the two or in both.
pub struct Reading {
    /// Everything that is kept, oldest first.
    pub past: Vec<Numbered>,
    /// Records to come. A reader that is too slow gets `Lagged` with the number of records it lost.
    pub next: broadcast::Receiver<Numbered>,
}

/// The task that owns the flow log has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the flow log has ended; the agent is stopping")]
pub struct StoreGone;

enum Command {
    Record(Arc<Record>),
    Read(oneshot::Sender<Reading>),
    Live(oneshot::Sender<Vec<Live>>),
    Cookies(oneshot::Sender<HashSet<u64>>),
    Reconcile(Listing),
}

/// Answered when the records that were there have been added.
pub type CatchUp = oneshot::Sender<()>;

/// The way to the store; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    reader: Arc<OnceLock<mpsc::Sender<CatchUp>>>,
    counters: Arc<Counters>,
}

impl Handle {
    /// Adds a record. Never waits: if the store is behind, the record is lost and counted.
    pub fn push(&self, record: Record) {
        if self
            .commands
            .try_send(Command::Record(Arc::new(record)))
            .is_err()
        {
            let _before = self.counters.queue_full.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The log now, with the records that the reader had not looked at yet, and the records to come.
    ///
    /// # Errors
    /// The store has ended.
    pub async fn read(&self) -> Result<Reading, StoreGone> {
        self.catch_up().await;
        self.ask(Command::Read).await
    }

    /// Requests to whoever reads the kernel's records and adds them: the first who asks for them gets them all.
    #[must_use]
    pub fn requests(&self) -> mpsc::Receiver<CatchUp> {
        let (sender, receiver) = mpsc::channel(REQUESTS);
        // Whoever asks later finds its own channel closed.
        let _ = self.reader.set(sender);
        receiver
    }

    /// Flows that are open, those included whose records the reader had not looked at yet.
    ///
    /// # Errors
    /// The store has ended.
    pub async fn live(&self) -> Result<Vec<Live>, StoreGone> {
        self.catch_up().await;
        self.ask(Command::Live).await
    }

    /// Cookies of the TCP sockets with flows that are open, as [`Self::live`] tells of them.
    ///
    /// # Errors
    /// The store has ended.
    pub async fn cookies(&self) -> Result<HashSet<u64>, StoreGone> {
        self.catch_up().await;
        self.ask(Command::Cookies).await
    }

    /// Brings the live TCP flows in line with the sockets that there are.
    ///
    /// # Errors
    /// The store has ended.
    pub async fn reconcile(&self, listing: Listing) -> Result<(), StoreGone> {
        self.send(Command::Reconcile(listing)).await
    }

    /// What the store counts.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Waits until the reader has added what is there. Without one nothing comes any more.
    async fn catch_up(&self) {
        let Some(reader) = self.reader.get() else {
            return;
        };
        let (done, caught_up) = oneshot::channel();
        if reader.send(done).await.is_ok() {
            let _gone = caught_up.await;
        }
    }

    async fn ask<T>(&self, command: fn(oneshot::Sender<T>) -> Command) -> Result<T, StoreGone> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        answer.await.map_err(|_| StoreGone)
    }

    async fn send(&self, command: Command) -> Result<(), StoreGone> {
        self.commands.send(command).await.map_err(|_| StoreGone)
    }
}

/// The log and the live flows. [`Store::run`] is its task.
pub struct Store {
    commands: mpsc::Receiver<Command>,
    counters: Arc<Counters>,
    log: VecDeque<Numbered>,
    capacity: usize,
    sequence: u64,
    lost_seen: u64,
    live: Table,
    followers: broadcast::Sender<Numbered>,
}

/// A store that keeps the last `capacity` records, and the handle to it.
#[must_use]
pub fn open(capacity: usize) -> (Handle, Store) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let counters = Arc::new(Counters::default());
    let handle = Handle {
        commands: sender,
        reader: Arc::default(),
        counters: Arc::clone(&counters),
    };
    let store = Store {
        commands: receiver,
        counters,
        log: VecDeque::new(),
        capacity: capacity.max(1),
        sequence: 0,
        lost_seen: 0,
        live: Table::default(),
        followers: broadcast::Sender::new(FOLLOW),
    };
    (handle, store)
}

impl Store {
    /// Runs until every handle is dropped.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.commands.recv_many(&mut batch, BATCH).await > 0 {
            for command in batch.drain(..) {
                self.execute(command);
            }
            let live = u64::try_from(self.live.len()).unwrap_or(u64::MAX);
            self.counters.live.store(live, Ordering::Relaxed);
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Record(record) => self.add(record),
            // Whoever asked may have gone away; then nobody is told, which is right.
            Command::Read(reply) => {
                let _gone = reply.send(self.reading());
            }
            Command::Live(reply) => {
                let _gone = reply.send(self.live.list());
            }
            Command::Cookies(reply) => {
                let _gone = reply.send(self.live.cookies());
            }
            Command::Reconcile(listing) => {
                let held = self.live.reconcile(listing);
                self.note_live(held);
            }
        }
    }

    fn add(&mut self, record: Arc<Record>) {
        self.counters.count(&record);
        let held = self.live.apply(&record.event);
        self.note_live(held);
        // Losses become a gap. Those counted while earlier records still waited in the queue open it a
        // little early; the total is right.
        let lost = self.counters.queue_full();
        self.sequence += 1 + lost.saturating_sub(self.lost_seen);
        self.lost_seen = lost;
        let numbered = Numbered {
            sequence: self.sequence,
            record,
        };
        if self.log.len() >= self.capacity {
            let _oldest = self.log.pop_front();
            let _before = self.counters.evicted.fetch_add(1, Ordering::Relaxed);
        }
        self.log.push_back(numbered.clone());
        // An error means that nobody follows.
        let _followers = self.followers.send(numbered);
    }

    fn reading(&self) -> Reading {
        Reading {
            past: self.log.iter().cloned().collect(),
            next: self.followers.subscribe(),
        }
    }

    fn note_live(&self, held: bool) {
        if !held {
            let _before = self.counters.live_full.fetch_add(1, Ordering::Relaxed);
        }
    }
}
