//! The reader of the event ring: records to the flow log, questions about executables to the policy
//! task, revoked connections to the task that ends them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use ringfence_common::abi::{Event, ExecutableKey, FlowKey, Owner, event, tuple::TCP};
use tokio::sync::{mpsc, watch};

use super::{clock, publish::Published, revoke};
use crate::{
    datapath::{Events, FlowMap, key_of},
    flow::{self, Names, ProcessBook},
};

/// Questions that wait at most; a question that is lost is asked again by the next packet.
pub const QUESTIONS: usize = 4096;
/// How often idle datagram flows are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// Sockets whose datagram flows are remembered at most.
const MAX_SOCKETS: usize = 1 << 17;
/// Between two looks at the ring. A record wakes the agent only where all before it were read (`bpf_ringbuf_commit`,
/// `kernel/bpf/ringbuf.c`): with a pause, not every connection pays for that. The ring holds 15,000 records, and
/// a packet that waits for an answer is sent again after 50 ms.
const PAUSE: Duration = Duration::from_millis(1);
/// Datagram flows of one socket that are remembered at most; the others end when they are idle.
const MAX_FLOWS: usize = 1 << 13;

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

/// Owner of the ring and of the flow map's end.
pub struct Reader {
    events: Events,
    flow_map: FlowMap,
    flows: flow::Handle,
    names: watch::Receiver<Arc<Names>>,
    processes: ProcessBook,
    questions: mpsc::Sender<Question>,
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
        questions: mpsc::Sender<Question>,
        revoke: mpsc::Sender<revoke::Target>,
    ) -> Self {
        Self {
            events,
            flow_map,
            flows,
            names: published.names(),
            processes: ProcessBook::new(published.cgroups()),
            questions,
            revoke,
            datagrams: HashMap::new(),
        }
    }

    /// Reads until the ring fails.
    ///
    /// # Errors
    /// The ring can't be polled.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut sweep = tokio::time::interval(SWEEP);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                read = self.events.read(&mut batch) => {
                    read.context("the event ring")?;
                    for event in batch.drain(..) {
                        self.handle(&event);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                _ = sweep.tick() => {
                    for event in self.flow_map.end_idle(clock::boot_now_ns()) {
                        let event = self.forget(event);
                        self.push(&event);
                    }
                }
            }
        }
    }

    fn handle(&mut self, event: &Event) {
        match event.kind {
            event::PENDING | event::EXEC => {
                let question = Question {
                    key: event.owner.executable,
                    tgid: event.owner.tgid,
                    cgroup: event.owner.cgroup,
                    class: event.owner.class,
                };
                // Full: it is asked again.
                let _ = self.questions.try_send(question);
            }
            event::RELEASE => self.release(event.cookie),
            _ => {
                if event.tuple.protocol != TCP && event.kind == event::OPEN {
                    self.remember(event);
                }
                if let Some(target) = revoke::target(event) {
                    let _ = self.revoke.try_send(target);
                }
                self.push(event);
            }
        }
    }

    fn push(&mut self, event: &Event) {
        let names = self.names.borrow().clone();
        let offset = clock::boot_to_wall_ns();
        if let Some(record) = flow::record(event, &names, &mut self.processes, offset) {
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
    fn release(&mut self, cookie: u64) {
        let now = clock::boot_now_ns();
        for (key, owner) in self.datagrams.remove(&cookie).unwrap_or_default() {
            if let Some(mut event) = self.flow_map.end(&key, now) {
                event.owner = owner;
                self.push(&event);
            }
        }
    }
}
