//! The task that looks at the sockets and publishes the endpoints.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use ringfence_common::abi::{Identity, Owner};
use ringfence_policy::compile::Compiled;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
    time::sleep,
};

use super::{
    Endpoints, Ends, Look, Who,
    unjudged::{Terms, Unjudged},
    unowned::Unowned,
};
use crate::{
    api::PolicyView,
    datapath::{
        DatapathError,
        survey::{FoundSocket, Scope, Survey},
    },
    identity::{Inventory, Tables},
};

/// The least time between two looks that nobody asked for.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest one.
const LONGEST: Duration = Duration::from_secs(30);
/// A look is followed by a pause this many times as long, so that it takes at most 2 % of a CPU on hosts
/// with very many sockets, processes or namespaces.
const PAUSE: u32 = 50;

/// Owner of the survey and of the published list.
pub struct Task {
    survey: Survey,
    unowned: Unowned,
    unjudged: Unjudged,
    root: Root,
    tables: watch::Receiver<Arc<Tables>>,
    policy: watch::Receiver<Arc<PolicyView>>,
    /// Workload by identity, as of the policy last seen.
    names: Arc<BTreeMap<Identity, Arc<str>>>,
    published: watch::Sender<Arc<Endpoints>>,
    questions: mpsc::Receiver<oneshot::Sender<Look>>,
}

/// The guarded root.
#[derive(Debug)]
pub struct Root {
    /// Its directory.
    pub path: PathBuf,
    /// Its cgroup id.
    pub id: u64,
    /// Paths of cgroups below it, by id.
    pub cgroups: watch::Receiver<Inventory>,
}

impl Task {
    /// Looks by the maps pinned in `directory`.
    ///
    /// # Errors
    /// The map of sockets can't be opened, or there is no netlink.
    pub fn new(
        directory: &Path,
        root: Root,
        tables: watch::Receiver<Arc<Tables>>,
        mut policy: watch::Receiver<Arc<PolicyView>>,
        terms: Terms,
        ends: Ends,
    ) -> Result<Self, DatapathError> {
        policy.mark_changed();
        Ok(Self {
            survey: Survey::new(directory)?,
            unowned: Unowned::default(),
            unjudged: Unjudged::new(terms),
            root,
            tables,
            policy,
            names: Arc::default(),
            published: ends.published,
            questions: ends.questions,
        })
    }

    /// Runs until the process ends.
    ///
    /// # Errors
    /// A look has panicked.
    pub async fn run(mut self) -> anyhow::Result<()> {
        loop {
            let (took, look);
            (self, took, look) = self.look(Scope::Receiving).await?;
            drop(look);
            let pause = took.saturating_mul(PAUSE).clamp(SHORTEST, LONGEST);
            let mut pause = std::pin::pin!(sleep(pause));
            loop {
                let reply = tokio::select! {
                    () = &mut pause => break,
                    Some(reply) = self.questions.recv() => reply,
                };
                let mut waiting = vec![reply];
                while let Ok(reply) = self.questions.try_recv() {
                    waiting.push(reply);
                }
                let look;
                (self, _, look) = self.look(Scope::All).await?;
                for reply in waiting {
                    // Whoever asked may be gone.
                    let _ = reply.send(look.clone());
                }
            }
        }
    }

    /// One look, in a thread that may block, and what it took.
    async fn look(mut self, scope: Scope) -> anyhow::Result<(Self, Duration, Look)> {
        if self.policy.has_changed().unwrap_or(false) {
            let view = self.policy.borrow_and_update().clone();
            let names = view.identities.iter();
            let names = names.map(|(name, identity)| (*identity, Arc::from(name.as_str())));
            self.names = Arc::new(names.collect());
        }
        let tables = self.tables.borrow().clone();
        let compiled = Arc::clone(&self.policy.borrow().compiled);
        spawn_blocking(move || {
            let began = Instant::now();
            let look = self.take(scope, &tables, &compiled);
            (self, began.elapsed(), look)
        })
        .await
        .context("the look at the sockets")
    }

    fn take(&mut self, scope: Scope, tables: &Tables, compiled: &Compiled) -> Look {
        let before = self.published.borrow().clone();
        let mut sockets = Vec::new();
        let endpoints = match self.survey.look(scope) {
            Ok(found) => {
                sockets = found.sockets;
                let whose = |owner: &Owner| Who::present(tables, self.root.id, owner);
                self.unjudged.look(&sockets, whose, compiled);
                self.endpoints(&mut sockets, found.unread, tables)
            }
            // What was there is likelier still there than gone.
            Err(error) => Endpoints {
                error: Some(format!("the sockets of this host can't be read: {error}")),
                ..Endpoints::clone(&before)
            },
        };
        if before.error != endpoints.error
            && let Some(error) = &endpoints.error
        {
            tracing::warn!(error, "the list of endpoints is not whole");
        }
        let who = self.who(tables);
        let owner = |socket: &FoundSocket| (socket.inode, who.identity(socket));
        let owners = match scope {
            Scope::Receiving => HashMap::new(),
            Scope::All => sockets.iter().map(owner).collect(),
        };
        let look = |endpoints| Look {
            endpoints,
            owners: Arc::new(owners),
        };
        if *before == endpoints {
            return look(before);
        }
        let endpoints = Arc::new(endpoints);
        drop(self.published.send_replace(Arc::clone(&endpoints)));
        look(endpoints)
    }

    fn endpoints(
        &mut self,
        sockets: &mut [FoundSocket],
        unread: Option<(usize, String)>,
        tables: &Tables,
    ) -> Endpoints {
        let cgroups = self.root.cgroups.borrow().clone();
        let place = |id: u64| {
            let path = cgroups.path(id)?;
            Some(self.root.path.join(path.trim_start_matches('/')))
        };
        self.unowned.fill(sockets, tables, &self.survey, place);
        let mut endpoints = self.who(tables).endpoints(sockets);
        endpoints.error = unread.map(|(namespaces, error)| {
            format!("{namespaces} network namespaces can't be read: {error}")
        });
        endpoints
    }

    fn who<'a>(&'a self, tables: &'a Tables) -> Who<'a> {
        Who {
            tables,
            root: self.root.id,
            names: &self.names,
        }
    }
}
