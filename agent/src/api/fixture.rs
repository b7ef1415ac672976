//! An agent's interface on a socket of its own, for tests here and of the command line.
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use ringfence_common::{
    abi::{self, Decision, Direction, Owner, Tuple, Verdict, event},
    logic::address::map_v4,
};
use ringfence_policy::{
    compile::{self, compile, derive_identities},
    model::Document,
    parse::parse,
};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    config::Mode,
    flow::{Handle, Names, ProcessBook},
    identity::HASH_LIMIT,
};

const POLICY: &str = r#"
[[workload]]
name = "web"
labels = { app = "web", tier = "front" }
match = { systemd-unit = "web.service", exe = "/usr/bin/web" }

[[workload]]
name = "db"
labels = { app = "db" }
match = { cgroup = "/db/*" }

[[policy]]
name = "web"
applies-to = { app = "web" }
not-after = 2100-01-31T18:00:00Z
[[policy.egress]]
to = [{ workload = "db" }]
ports = ["5432/tcp"]
[[policy.egress]]
to = [{ cidr = "203.0.113.0/24" }]
ports = ["443/tcp"]

[[policy]]
name = "db"
applies-to = { app = "db" }
[[policy.ingress]]
from = [{ workload = "web", verified = true }]
ports = ["5432/tcp"]

[[policy]]
name = "db-draft"
applies-to = { app = "db" }
mode = "draft"
[[policy.deny-ingress]]
ports = ["5432/tcp"]
"#;

/// A running interface.
pub(crate) struct Fixture {
    pub(crate) path: PathBuf,
    pub(crate) flows: Handle,
    pub(crate) cancel: CancellationToken,
    pub(crate) server: JoinHandle<Result<(), ApiError>>,
    names: Names,
    web: u32,
    db: u32,
    /// What the policy task would be asked.
    pub(crate) commands: Option<mpsc::Receiver<Command>>,
    _directory: TempDir,
    tables: watch::Sender<Arc<Tables>>,
    // Kept, or the interface would see its sources end.
    status: watch::Sender<Arc<Status>>,
    policy: watch::Sender<Arc<PolicyView>>,
}

/// The view of the test policy.
pub(crate) fn view() -> PolicyView {
    view_of(POLICY)
}

fn view_of(text: &str) -> PolicyView {
    let document = Document {
        name: "/etc/policy.toml".to_owned(),
        text: text.into(),
    };
    let set = parse(&[document]).unwrap();
    let identities = derive_identities(&set).unwrap();
    let context = compile::Context {
        now: OffsetDateTime::UNIX_EPOCH,
        boot_now_ns: 1,
        deny_unselected: false,
    };
    let compiled = compile(&set, &identities, &context).unwrap();
    PolicyView {
        set: set.into(),
        identities: identities.into(),
        compiled: compiled.into(),
        cgroups: Inventory::new(["db"], [(1, "/db/1", &["db"][..])]),
    }
}

/// A host that is guarded.
pub(crate) fn status() -> Status {
    Status {
        started: UNIX_EPOCH + Duration::from_secs(1_000_000_000),
        cgroup_root: "/sys/fs/cgroup".into(),
        mode: Mode::Enforce,
        generation: 7,
        applied: Some(UNIX_EPOCH + Duration::from_secs(1_000_000_001)),
        policy_source: PolicySource::Files,
        controller_generation: 0,
        controller_state: None,
        controller_endpoint: String::new(),
        controller_error: None,
        policy_error: Some("web.toml:3: wrong".to_owned()),
        pending: None,
        features: [("bpf-lsm", false), ("btf", true)]
            .map(|(name, present)| Feature {
                name: name.to_owned(),
                present,
                required: false,
                note: format!("{name} is not there"),
            })
            .into(),
        hooks: ["connect4", "bind4"]
            .map(|name| Hook {
                name: name.to_owned(),
                attached: true,
                program_id: 11,
                link_id: 12,
            })
            .into(),
        counts: BTreeMap::from([("event-lost".to_owned(), 5), ("event-sent".to_owned(), 0)]),
        warnings: vec!["the failsafe list is empty".to_owned()],
    }
}

/// Where the workloads of the test policy listen; `hostile` is what nobody should name a workload.
fn listening() -> listening::Look {
    let endpoint = |identity, workload: &str, port, address: &str| listening::Endpoint {
        identity,
        workload: workload.into(),
        namespace: 1,
        protocol: 6,
        port,
        address: address.parse().unwrap(),
        dual_stack: address == "::",
        device: 0,
    };
    let list = [
        endpoint(300, "web", 80, "::"),
        endpoint(301, "db", 5432, "10.0.0.2"),
    ];
    listening::Look {
        endpoints: Arc::new(listening::Endpoints {
            list: list.into(),
            omitted: 3,
            error: None,
        }),
        owners: Arc::default(),
    }
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::start_with(listening()).await
    }

    pub(crate) async fn start_with(look: listening::Look) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/agent.sock");
        let view = view();
        let names = Names::default().next(&view.set, &view.identities, &view.compiled);
        let identity = |name: &str| *view.identities.get(name).unwrap();
        let (web, db) = (identity("web"), identity("db"));
        let (flows, store) = flow::open(1000);
        let _store = tokio::spawn(store.run());
        let (status_sender, status) = watch::channel(Arc::new(status()));
        let (policy_sender, policy) = watch::channel(Arc::new(view));
        let (tables, tables_receiver) = watch::channel(Arc::default());
        let (changes, commands) = mpsc::channel(16);
        let context = Context {
            changes,
            status,
            policy,
            failsafe: Arc::new([FailsafeEntry {
                address: map_v4([192, 0, 2, 0]),
                prefix: 120,
                first_port: 22,
                last_port: 23,
                protocol: 6,
                ..FailsafeEntry::default()
            }]),
            flows: flows.clone(),
            tables: tables_receiver,
            endpoints: listening::fixed(look),
            hash_limit: HASH_LIMIT,
            boot_now_ns: || 10,
        };
        let listener = bind(&path).await.unwrap();
        let cancel = CancellationToken::new();
        let server = tokio::spawn(serve(context, listener, cancel.clone()));
        Self {
            path,
            flows,
            cancel,
            server,
            names,
            web,
            db,
            tables,
            commands: Some(commands),
            _directory: directory,
            status: status_sender,
            policy: policy_sender,
        }
    }

    /// Changes the state that is told.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Status)) {
        self.status
            .send_modify(|status| change(Arc::make_mut(status)));
    }

    /// Tells of the processes of this machine: all of them are of the host.
    pub(crate) fn show_host(&self) {
        let root = crate::identity::root::find().unwrap();
        let id = crate::identity::root::cgroup_id(&root).unwrap();
        let entry = abi::CgroupEntry {
            identity: abi::identity::HOST,
            ..abi::CgroupEntry::default()
        };
        let tables = Tables {
            cgroups: [(id, entry)].into_iter().collect(),
            ..Tables::default()
        };
        drop(self.tables.send_replace(Arc::new(tables)));
        self.change(|status| status.cgroup_root = root);
    }

    /// Replaces the policy that is told by this document.
    pub(crate) fn set_document(&self, text: &str) {
        self.set_policy(view_of(text));
    }

    /// Replaces the policy that is told.
    pub(crate) fn set_policy(&self, view: PolicyView) {
        drop(self.policy.send_replace(Arc::new(view)));
    }

    /// Adds the record of a flow from web to db.
    pub(crate) fn push(&self, kind: u8, verdict: Verdict, cookie: u64) {
        let mut comm = [0; 16];
        comm.iter_mut()
            .zip(b"curl")
            .for_each(|(to, from)| *to = *from);
        let event = abi::Event {
            time_ns: 43_201_123_000_000,
            opened_ns: 43_200_000_000_000,
            cookie,
            tx_bytes: 1536,
            rx_bytes: 10,
            tuple: Tuple {
                local: map_v4([10, 0, 0, 1]),
                remote: map_v4([10, 0, 0, 2]),
                local_port: 40_000,
                remote_port: 5432,
                protocol: 6,
                ..Tuple::default()
            },
            owner: Owner {
                identity: self.web,
                tgid: 4_000_000_000,
                comm,
                ..Owner::default()
            },
            decision: Decision {
                peer: self.db,
                verdict: verdict as u8,
                draft_verdict: verdict as u8,
                reason: if verdict == Verdict::Allow { 5 } else { 9 },
                draft_reason: 9,
                direction: Direction::Egress as u8,
                ..Decision::default()
            },
            kind,
            ..abi::Event::default()
        };
        let (_sender, cgroups) = watch::channel(Inventory::default());
        let mut processes = ProcessBook::new(cgroups);
        let record = flow::record(&event, &self.names, &mut processes, 0).unwrap();
        self.flows.push(record);
    }

    /// Publishes another mode.
    pub(crate) fn set_mode(&self, mode: Mode) {
        self.status
            .send_modify(|status| Arc::make_mut(status).mode = mode);
    }

    pub(crate) fn deny(&self, cookie: u64) {
        self.push(event::DENY, Verdict::Deny, cookie);
    }
}
