//! Agents and what they answered: one task owns the list.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::HostEndpoints;

/// One agent, as the operator sees it.
#[derive(Clone, Debug)]
pub struct AgentInfo {
    /// Host name.
    pub host: String,
    /// Version of the agent.
    pub version: String,
    /// Has a stream.
    pub connected: bool,
    /// Last generation sent, 0 = none.
    pub sent: u64,
    /// Last generation acknowledged, 0 = none.
    pub applied: u64,
    /// Last refusal; empty after an acknowledgement.
    pub error: String,
    /// Last message or end of the stream.
    pub seen: SystemTime,
    /// Endpoints that it has reported; none when it has no stream.
    pub endpoints: Arc<HostEndpoints>,
}

/// What a stream reports.
#[derive(Debug)]
pub(super) enum Report {
    /// An update is on its way.
    Sent(u64),
    /// The agent applied it.
    Applied(u64),
    /// The agent refused it.
    Refused(String),
    /// The stream is over.
    Left,
}

enum Command {
    Join {
        host: String,
        version: String,
        endpoints: watch::Receiver<Arc<HostEndpoints>>,
        reply: oneshot::Sender<Option<(u64, CancellationToken)>>,
    },
    Report {
        host: String,
        id: u64,
        report: Report,
    },
    List(oneshot::Sender<Vec<AgentInfo>>),
}

/// A handle to the list. Unbounded, but each agent has at most one update in flight.
#[derive(Clone, Debug)]
pub struct Registry(mpsc::UnboundedSender<Command>);

/// The place of one stream in the list; leaving is dropping it.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) host: String,
    id: u64,
    /// Cancelled when another stream takes the host name.
    pub(super) superseded: CancellationToken,
    /// What the agent reported on this stream; gone with it.
    pub(super) endpoints: watch::Sender<Arc<HostEndpoints>>,
    registry: Registry,
}

impl Registry {
    /// Starts the task; it ends with the last handle.
    #[must_use]
    pub fn start(max_agents: usize) -> Self {
        let (commands, mut received) = mpsc::unbounded_channel();
        drop(tokio::spawn(async move {
            let mut list = List {
                agents: HashMap::new(),
                max_agents,
                last_id: 0,
            };
            while let Some(command) = received.recv().await {
                list.handle(command);
            }
        }));
        Self(commands)
    }

    /// All agents of this controller's lifetime, ordered by host.
    pub async fn list(&self) -> Vec<AgentInfo> {
        let (reply, answer) = oneshot::channel();
        // If the task is gone, so is the reply.
        let _ = self.0.send(Command::List(reply));
        answer.await.unwrap_or_default()
    }

    /// Takes the place of the host, from an older stream if there is one; `None` when the list is full.
    pub(super) async fn join(&self, host: String, version: String) -> Option<Seat> {
        let (reply, answer) = oneshot::channel();
        let (endpoints, reported) = watch::channel(Arc::default());
        let join = Command::Join {
            host: host.clone(),
            version,
            endpoints: reported,
            reply,
        };
        let _ = self.0.send(join);
        let (id, superseded) = answer.await.ok()??;
        Some(Seat {
            host,
            id,
            superseded,
            endpoints,
            registry: self.clone(),
        })
    }
}

impl Seat {
    pub(super) fn report(&self, report: Report) {
        let _ = self.registry.0.send(Command::Report {
            host: self.host.clone(),
            id: self.id,
            report,
        });
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.report(Report::Left);
    }
}

struct Entry {
    info: AgentInfo,
    endpoints: watch::Receiver<Arc<HostEndpoints>>,
    id: u64,
    superseded: CancellationToken,
}

impl Entry {
    fn info(&self) -> AgentInfo {
        let mut info = self.info.clone();
        if info.connected {
            info.endpoints = self.endpoints.borrow().clone();
        }
        info
    }
}

struct List {
    agents: HashMap<String, Entry>,
    max_agents: usize,
    last_id: u64,
}

impl List {
    fn handle(&mut self, command: Command) {
        match command {
            Command::Join {
                host,
                version,
                endpoints,
                reply,
            } => {
                let _ = reply.send(self.join(host, version, endpoints));
            }
            Command::Report { host, id, report } => self.report(&host, id, report),
            Command::List(reply) => {
                let mut agents: Vec<_> = self.agents.values().map(Entry::info).collect();
                agents.sort_unstable_by(|a, b| a.host.cmp(&b.host));
                let _ = reply.send(agents);
            }
        }
    }

    fn join(
        &mut self,
        host: String,
        version: String,
        endpoints: watch::Receiver<Arc<HostEndpoints>>,
    ) -> Option<(u64, CancellationToken)> {
        if !self.agents.contains_key(&host) && !self.make_room() {
            return None;
        }
        self.last_id += 1;
        let id = self.last_id;
        let superseded = CancellationToken::new();
        let info = AgentInfo {
            host: host.clone(),
            version,
            connected: true,
            sent: 0,
            applied: 0,
            error: String::new(),
            seen: SystemTime::now(),
            endpoints: Arc::default(),
        };
        let entry = Entry {
            info,
            endpoints,
            id,
            superseded: superseded.clone(),
        };
        if let Some(older) = self.agents.insert(host, entry) {
            older.superseded.cancel();
        }
        Some((id, superseded))
    }

    /// Forgets the agent that has been away for longest, if the list is full.
    fn make_room(&mut self) -> bool {
        if self.agents.len() < self.max_agents {
            return true;
        }
        let away = self
            .agents
            .values()
            .filter(|entry| !entry.info.connected)
            .min_by_key(|entry| entry.info.seen)
            .map(|entry| entry.info.host.clone());
        away.is_some_and(|host| self.agents.remove(&host).is_some())
    }

    fn report(&mut self, host: &str, id: u64, report: Report) {
        // A stream that was superseded has nothing to say any more.
        let Some(entry) = self.agents.get_mut(host).filter(|entry| entry.id == id) else {
            return;
        };
        let info = &mut entry.info;
        info.seen = SystemTime::now();
        match report {
            Report::Sent(generation) => info.sent = generation,
            Report::Applied(generation) => {
                info.applied = generation;
                info.error.clear();
            }
            Report::Refused(error) => info.error = error,
            Report::Left => {
                info.connected = false;
                // Nobody hears of them any more: the list is freed.
                entry.endpoints = watch::channel(Arc::default()).1;
            }
        }
    }
}
