//! Live processes, with what each is taken for.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
};

use ringfence_common::abi::{Identity, identity};
use ringfence_policy::model::{RESERVED, Workload};
use ringfence_proto::v1;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};
use tokio_stream::Stream;
use tonic::Status;

use super::{Context, PolicyView};
use crate::identity::{
    Tables,
    live::{Live, LookError, Processes, ProgramState, sockets_of},
    root::cgroup_id,
    why::{Asked, Depth, SelectorCheck, identity_of},
};

/// Walks over /proc at a time.
pub(super) const MAX_WALKS: usize = 2;
/// Processes or identities in one message.
pub(super) const MESSAGE: usize = 100;

/// A stream of messages that are there already.
pub(super) type Listed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What an answer about processes is made from: one moment of everything that is published.
pub(super) struct Moment {
    pub view: Arc<PolicyView>,
    pub tables: Arc<Tables>,
    pub root: PathBuf,
    pub hash_limit: u64,
    /// Name of each identity in force.
    names: BTreeMap<Identity, String>,
}

impl Moment {
    pub fn of(context: &Context) -> Self {
        let view = context.policy.borrow().clone();
        let names = view.identities.iter();
        Self {
            names: names
                .map(|(name, number)| (*number, name.clone()))
                .collect(),
            tables: context.tables.borrow().clone(),
            root: context.status.borrow().cgroup_root.clone(),
            hash_limit: context.hash_limit,
            view,
        }
    }

    /// Name of a workload or reserved identity; the number for one that has no name any more.
    pub fn name(&self, identity: Identity) -> String {
        let reserved = RESERVED.iter().find(|(_, number)| *number == identity);
        reserved
            .map(|(name, _)| (*name).to_owned())
            .or_else(|| self.names.get(&identity).cloned())
            .unwrap_or_else(|| identity.to_string())
    }

    pub fn root_id(&self) -> u64 {
        cgroup_id(&self.root).unwrap_or(0)
    }

    fn workload(&self, name: &str) -> Option<&Workload> {
        self.view
            .set
            .workloads
            .iter()
            .find(|workload| workload.name == name)
            .map(Arc::as_ref)
    }

    /// Whether a name in a request is one that processes can have.
    fn is_name(&self, name: &str) -> bool {
        self.view.identities.contains_key(name)
            || RESERVED.iter().any(|(reserved, _)| *reserved == name)
    }
}

/// A place among those that read /proc.
pub(super) fn place(walks: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Status> {
    Arc::clone(walks).try_acquire_owned().map_err(|_| {
        Status::resource_exhausted(format!(
            "{MAX_WALKS} others read the processes of this host already; try again"
        ))
    })
}

/// The answer to `ListProcesses`.
pub(super) async fn list(
    context: &Context,
    walks: &Arc<Semaphore>,
    request: v1::ListProcessesRequest,
) -> Result<Listed<v1::ListProcessesResponse>, Status> {
    let place = place(walks)?;
    let moment = Moment::of(context);
    let names = request.workload;
    if let Some(unknown) = names.iter().find(|name| !moment.is_name(name)) {
        return Err(super::explain::unknown(&moment.view, "workload", unknown));
    }
    let owners = owners(context).await;
    let walk = move || {
        let _place = place;
        let root = moment.root_id();
        let mut asked = Asked::new(moment.hash_limit);
        let all = Processes::new(&moment.root, &moment.tables)?.all()?;
        let found = all.iter().filter_map(|live| {
            let identity = identity_of(live, &moment.tables, root);
            let name = moment.name(identity);
            let (sockets, of_others) = open_sockets(live.tgid, identity, &owners, &moment);
            let holds = |owner: &v1::SocketOwner| names.contains(&owner.workload);
            if !names.is_empty() && !names.contains(&name) && !of_others.iter().any(holds) {
                return None;
            }
            let workload = moment.workload(&name);
            let checks = workload.map(|workload| asked.checks(workload, live, Depth::AsJudged));
            let mut message = message(live, identity, name, &mut asked);
            message.sockets = sockets;
            message.sockets_of_others = of_others;
            message.selectors = checks.into_iter().flatten().map(Into::into).collect();
            Some(message)
        });
        Ok(found.collect::<Vec<_>>())
    };
    let processes = blocking(walk).await?;
    Ok(chunks(processes, MESSAGE, |processes| {
        v1::ListProcessesResponse { processes }
    }))
}

/// The answer to `ListIdentities`.
pub(super) async fn identities(
    context: &Context,
    walks: &Arc<Semaphore>,
) -> Result<Listed<v1::ListIdentitiesResponse>, Status> {
    let place = place(walks)?;
    let moment = Moment::of(context);
    let walk = move || {
        let _place = place;
        let root = moment.root_id();
        let mut processes: BTreeMap<Identity, u32> = BTreeMap::new();
        for live in Processes::new(&moment.root, &moment.tables)?.all()? {
            let identity = identity_of(&live, &moment.tables, root);
            *processes.entry(identity).or_default() += 1;
        }
        let mut cgroups: BTreeMap<Identity, u32> = BTreeMap::new();
        for entry in moment.tables.cgroups.values() {
            *cgroups.entry(entry.identity).or_default() += 1;
        }
        let labels: BTreeMap<&str, _> = moment
            .view
            .set
            .workloads
            .iter()
            .map(|workload| (workload.name.as_str(), &*workload.labels))
            .collect();
        let mut numbers: Vec<Identity> = RESERVED.iter().map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        numbers.extend(moment.names.keys());
        let one = |number: &Identity| {
            let name = moment.name(*number);
            let labels = labels.get(name.as_str()).copied();
            v1::IdentityInfo {
                identity: *number,
                kind: if identity::is_workload(*number) {
                    "workload"
                } else {
                    "reserved"
                }
                .to_owned(),
                labels: labels
                    .into_iter()
                    .flatten()
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect(),
                processes: processes.get(number).copied().unwrap_or(0),
                cgroups: cgroups.get(number).copied().unwrap_or(0),
                name,
            }
        };
        Ok(numbers.iter().map(one).collect::<Vec<_>>())
    };
    let identities = blocking(walk).await?;
    Ok(chunks(identities, MESSAGE, |identities| {
        v1::ListIdentitiesResponse { identities }
    }))
}

/// Who owns each internet socket, by inode number; none while too many ask.
pub(super) async fn owners(context: &Context) -> Arc<HashMap<u64, Identity>> {
    let look = context.endpoints.look().await;
    look.map(|look| look.owners).unwrap_or_default()
}

/// Internet sockets that a process has open, and which of them are of whom besides the `identity` that it has itself.
pub(super) fn open_sockets(
    tgid: u32,
    own: Identity,
    owners: &HashMap<u64, Identity>,
    moment: &Moment,
) -> (u32, Vec<v1::SocketOwner>) {
    let inodes = sockets_of(tgid).into_iter().map(|(_, inode)| inode);
    let open: HashSet<u64> = inodes.collect();
    let mut number = 0_u32;
    let mut others: BTreeMap<Identity, u32> = BTreeMap::new();
    for owner in open.iter().filter_map(|inode| owners.get(inode)) {
        number += 1;
        if is_told(*owner) && *owner != own {
            *others.entry(*owner).or_default() += 1;
        }
    }
    let others = others
        .into_iter()
        .map(|(identity, sockets)| v1::SocketOwner {
            identity,
            workload: moment.name(identity),
            sockets,
        });
    (number, others.collect())
}

/// Whether that is somebody.
fn is_told(owner: Identity) -> bool {
    owner != identity::UNKNOWN && owner != identity::PENDING
}

/// Runs what may block, outside of the event loop.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LookError> + Send + 'static,
) -> Result<T, Status> {
    let done = spawn_blocking(work)
        .await
        .map_err(|error| Status::internal(format!("reading /proc failed: {error}")))?;
    done.map_err(|error| match &error {
        LookError::Gone(_) => Status::not_found(error.to_string()),
        LookError::KernelThread { .. } | LookError::Outside { .. } => {
            Status::failed_precondition(error.to_string())
        }
        // Not UNAVAILABLE: the command line takes that for a broken connection.
        LookError::Unreadable(_) => Status::failed_precondition(error.to_string()),
    })
}

/// A list as messages of so many items each.
pub(super) fn chunks<T: Send + 'static, M: Send + 'static>(
    mut items: Vec<T>,
    most: usize,
    message: impl Fn(Vec<T>) -> M + Send + 'static,
) -> Listed<M> {
    let next = move || {
        if items.is_empty() {
            return None;
        }
        let rest = items.split_off(most.min(items.len()));
        let first = std::mem::replace(&mut items, rest);
        Some(Ok(message(first)))
    };
    Box::pin(tokio_stream::iter(std::iter::from_fn(next)))
}

pub(super) fn message(
    live: &Live,
    identity: Identity,
    name: String,
    asked: &mut Asked,
) -> v1::LiveProcess {
    v1::LiveProcess {
        pid: live.tgid,
        command: live.comm.clone(),
        executable: live.program.path.to_string_lossy().into_owned(),
        executable_state: state(live.program.state).into(),
        uid: live.uid,
        user: asked.name_of(live.uid).to_owned(),
        cgroup: live.cgroup.to_string_lossy().into_owned(),
        cgroup_id: live.cgroup_id,
        identity,
        workload: name,
        network_namespace: live.netns,
        sockets: 0,
        sockets_of_others: Vec::new(),
        selectors: Vec::new(),
    }
}

const fn state(state: ProgramState) -> v1::ExecutableState {
    match state {
        ProgramState::OnDisk => v1::ExecutableState::OnDisk,
        ProgramState::Deleted => v1::ExecutableState::Deleted,
        ProgramState::Memfd => v1::ExecutableState::Memfd,
        ProgramState::OtherMounts => v1::ExecutableState::OtherMounts,
        ProgramState::Foreign => v1::ExecutableState::Foreign,
        ProgramState::Unreadable => v1::ExecutableState::Unreadable,
    }
}

impl From<SelectorCheck> for v1::SelectorMatch {
    fn from(check: SelectorCheck) -> Self {
        Self {
            key: check.key,
            matched: check.matched,
            wanted: check.wanted,
            found: check.found,
        }
    }
}
