//! The reader of the event ring: records to the flow log, questions about executables to the policy
//! task, as many at a time as that can take, revoked connections to the task that ends them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
use ringfence_common::abi::{Event, FlowKey, Owner, event, tuple::TCP};
use tokio::{
    sync::{mpsc, watch},
    time::{interval, sleep, timeout},
};

use super::{
    clock,
    publish::Published,
    questions::{Asker, Question, Questions},
    revoke,
};
use crate::{
    datapath::{Events, FlowMap, Left, key_of},
    flow::{self, Names, ProcessBook},
    identity::Subordinates,
    metrics::Metrics,
};

/// Questions that are answered before policy and cgroups get their turn again.
const QUESTIONS_AT_ONCE: usize = 32;
/// How often it is read which user has which subordinate ids.
const SUBORDINATES: Duration = Duration::from_secs(60);
/// How often idle datagram flows are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// Sockets whose datagram flows are remembered at most.
const MAX_SOCKETS: usize = 1 << 17;
/// Between two looks at the ring while there are records. Programs wake the agent only for what is urgent, a question or
/// a revoked connection, and when the ring fills: not every connection pays for that (an interrupt and a change of task).
const LOOK: Duration = Duration::from_millis(10);
/// The same where the last look found none.
const IDLE: Duration = Duration::from_millis(50);
/// After a look at what was urgent: much of that does not keep a processor busy, and a packet that waits for an answer is
/// sent again after 50 ms.
const PAUSE: Duration = Duration::from_millis(1);
/// Datagram flows of one socket that are remembered at most; the others end when they are idle.
const MAX_FLOWS: usize = 1 << 13;

/// What all records of one look at the ring are made with.
struct Moment {
    names: Arc<Names>,
    boot_to_wall_ns: i64,
}

/// Owner of the ring and of the flow map's end.
pub struct Reader {
    events: Events,
    flow_map: FlowMap,
    flows: flow::Handle,
    requests: mpsc::Receiver<flow::CatchUp>,
    names: watch::Receiver<Arc<Names>>,
    processes: ProcessBook,
    /// What nobody has taken yet.
    questions: Questions,
    asked: mpsc::Sender<Vec<Question>>,
    subordinates: Subordinates,
    metrics: Metrics,
    revoke: mpsc::Sender<revoke::Target>,
    /// Datagram flows of each socket, to end them when it closes.
    datagrams: HashMap<u64, HashMap<FlowKey, Owner>>,
}

impl Reader {
    /// Takes over the ring.
    #[must_use]
    pub fn new(
        events: Events,
        flow_map: FlowMap,
        flows: flow::Handle,
        published: &Published,
        metrics: Metrics,
        asked: mpsc::Sender<Vec<Question>>,
        revoke: mpsc::Sender<revoke::Target>,
    ) -> Self {
        Self {
            events,
            flow_map,
            requests: flows.requests(),
            flows,
            names: published.names(),
            processes: ProcessBook::new(published.cgroups()),
            questions: Questions::default(),
            asked,
            subordinates: Subordinates::of_host(),
            metrics,
            revoke,
            datagrams: HashMap::new(),
        }
    }

    /// Reads until the ring fails.
    ///
    /// # Errors
    /// The ring can't be polled.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut sweep = interval(SWEEP);
        let mut subordinates = interval(SUBORDINATES);
        let mut batch = Vec::new();
        let asked = self.asked.clone();
        let mut wait = LOOK;
        loop {
            tokio::select! {
                woken = timeout(wait, self.events.woken()) => {
                    let urgent = woken.is_ok();
                    woken.unwrap_or(Ok(())).context("the event ring")?;
                    wait = self.look(&mut batch);
                    if urgent {
                        sleep(PAUSE).await;
                    }
                }
                Some(done) = self.requests.recv() => {
                    self.catch_up(&mut batch);
                    // Whoever asked may have gone away.
                    let _gone = done.send(());
                }
                Ok(room) = asked.reserve(), if !self.questions.is_empty() => {
                    let next = std::iter::from_fn(|| self.questions.next());
                    let alive: Vec<_> = next.filter(is_alive).take(QUESTIONS_AT_ONCE).collect();
                    if !alive.is_empty() {
                        room.send(alive);
                    }
                }
                _ = subordinates.tick() => self.subordinates = Subordinates::of_host(),
                _ = sweep.tick() => {
                    let now = self.moment();
                    for event in self.flow_map.end_idle(clock::boot_now_ns()) {
                        let event = self.forget(event);
                        self.push(&event, &now);
                    }
                }
            }
        }
    }

    /// Handles all that the ring held when it was asked for: as much as it can hold.
    fn catch_up(&mut self, batch: &mut Vec<Event>) {
        for _ in 0..self.events.looks() {
            if !self.look(batch).is_zero() {
                return;
            }
        }
    }

    /// Handles what is in the ring; answers when to look again.
    fn look(&mut self, batch: &mut Vec<Event>) -> Duration {
        let left = self.events.take(batch);
        let now = self.moment();
        for event in batch.drain(..) {
            self.handle(&event, &now);
        }
        match left {
            Left::Nothing => IDLE,
            Left::Empty => LOOK,
            Left::Records => Duration::ZERO,
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            names: Arc::clone(&self.names.borrow()),
            boot_to_wall_ns: clock::boot_to_wall_ns(),
        }
    }

    fn handle(&mut self, event: &Event, now: &Moment) {
        if let Some((question, urgency)) = Question::of(event) {
            let asker = Asker::of(&event.owner, &self.subordinates);
            if let Some(dropped) = self.questions.ask(question, urgency, asker) {
                self.metrics.question_dropped(dropped.name());
            }
            return;
        }
        if event.kind == event::RELEASE {
            self.release(event.cookie, now);
            return;
        }
        if event.tuple.protocol != TCP && event.kind == event::OPEN {
            self.remember(event);
        }
        if let Some(target) = revoke::target(event) {
            let _ = self.revoke.try_send(target);
        }
        self.push(event, now);
    }

    fn push(&mut self, event: &Event, now: &Moment) {
        let offset = now.boot_to_wall_ns;
        if let Some(record) = flow::record(event, &now.names, &mut self.processes, offset) {
            self.flows.push(record);
        }
    }

    fn remember(&mut self, event: &Event) {
        if event.flags & event::UNTRACKED != 0 {
            return;
        }
        if self.datagrams.len() >= MAX_SOCKETS && !self.datagrams.contains_key(&event.cookie) {
            return;
        }
        let flows = self.datagrams.entry(event.cookie).or_default();
        if flows.len() < MAX_FLOWS {
            let _ = flows.entry(key_of(event)).or_insert(event.owner);
        }
    }

    /// Drops what was remembered of a flow that ended; the record gets its owner back.
    fn forget(&mut self, mut event: Event) -> Event {
        let key = key_of(&event);
        let Some(flows) = self.datagrams.get_mut(&event.cookie) else {
            return event;
        };
        if let Some(owner) = flows.remove(&key) {
            event.owner = owner;
        }
        if flows.is_empty() {
            let _ = self.datagrams.remove(&event.cookie);
        }
        event
    }

    /// A datagram socket closed: its flows are over.
    fn release(&mut self, cookie: u64, moment: &Moment) {
        let now = clock::boot_now_ns();
        for (key, owner) in self.datagrams.remove(&cookie).unwrap_or_default() {
            if let Some(mut event) = self.flow_map.end(&key, now) {
                event.owner = owner;
                self.push(&event, moment);
            }
        }
    }
}

/// Whether it still exists: what is asked about one that has ended needs no answer.
fn is_alive(question: &Question) -> bool {
    let tgid = i32::try_from(question.tgid).unwrap_or(0);
    tgid > 0 && kill(Pid::from_raw(tgid), None) != Err(Errno::ESRCH)
}
