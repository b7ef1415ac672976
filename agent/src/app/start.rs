//! The order of a start: everything that can be refused is refused before the kernel is touched; the
//! maps are filled before the programs are attached; the agent is ready when enforcement is complete.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, anyhow};
use nix::time::{ClockId, clock_getres};
use ringfence_common::abi::{
    Answering, Settings,
    settings::{DENY_UNSELECTED, DRAFT_MODE},
};
use tokio::net::TcpListener;

use super::{
    answers, clock, containers,
    engine::Engine,
    first::{First, first_policy},
    publish::Published,
    reconcile,
};
use crate::{
    api::{self, ControllerState, Feature, Hook, PolicySource, Status},
    config::{CgroupRoot, Config, Mode, Unselected},
    datapath::{
        Counts, Datapath, Events, FlowMap, Frames, KernelLog, Options, SOCKET, answers::Answerer,
        detach, every_hook, features, frames::Look, lock, mount,
    },
    endpoints, flow,
    identity::{Resolver, root},
    metrics::Metrics,
    sync::{self, Held},
};

/// Time until a SYN that was held is sent again.
const HOLD: Duration = Duration::from_millis(50);

/// Everything that the tasks take over.
pub struct Started {
    /// The datapath with its first policy in force.
    pub engine: Engine,
    /// Where the state is shown.
    pub published: Published,
    /// The bound gRPC socket.
    pub listener: api::Listener,
    /// Where metrics are served, if anywhere.
    pub metrics_listener: Option<TcpListener>,
    /// The event ring.
    pub events: Events,
    /// The datagram flows.
    pub flow_map: FlowMap,
    /// Debug messages of the programs, if they can be read.
    pub kernel_log: Option<KernelLog>,
    /// Counters of the programs.
    pub counts: Arc<Counts>,
    /// Access to the flow log.
    pub flows: flow::Handle,
    /// The flow log.
    pub store: flow::Store,
    /// Counters of the agent.
    pub metrics: Metrics,
    /// How to reach the controller, if there is one.
    pub synchronisation: Option<sync::Settings>,
    /// The controller's policy that is in force.
    pub held: Option<Held>,
    /// What the policy directory said, and what is refused.
    pub first: First,
    /// Looks where workloads listen.
    pub endpoints: endpoints::Task,
    /// Access to what it finds.
    pub listening: endpoints::Handle,
    /// Compares live flows with sockets.
    pub reconcile: reconcile::Task,
    /// What covers devices, and its first look at them.
    pub frames: (Frames, Look),
    /// Answers what is refused, if the configuration asks for it.
    pub answers: Option<answers::Task>,
    /// Keeps a second agent away as long as it lives.
    pub lock: lock::StateLock,
}

/// Starts everything but the tasks. A first start that fails leaves no pins behind.
///
/// # Errors
/// One clear message that names the place and the remedy.
pub async fn start(config: &Config) -> anyhow::Result<Started> {
    let first = !config.agent.pin_dir.exists();
    let started = attempt(config).await;
    if started.is_err() && first {
        detach::tidy(&config.agent.pin_dir);
    }
    started
}

async fn attempt(config: &Config) -> anyhow::Result<Started> {
    clock::check().map_err(anyhow::Error::msg)?;
    let features = features::probe();
    if let Some(missing) = features::missing(&features) {
        return Err(anyhow!(
            "this host lacks what enforcement needs:\n{missing}"
        ));
    }
    let root = match &config.agent.cgroup_root {
        CgroupRoot::Auto => root::locate("auto"),
        CgroupRoot::Path(path) => root::locate(&path.to_string_lossy()),
    }
    .context("[agent] cgroup-root")?;
    let options = Options {
        pin_dir: config.agent.pin_dir.clone(),
        cgroup_root: root.clone(),
        events_buffer: config.flows.events_buffer,
        flow_entries: config.flows.flow_entries,
        answering: answering(config, &features),
        debug: config.log.level >= tracing::Level::DEBUG,
    };
    let metrics_listener = listen(config).await?;
    let lock = lock::state(&config.agent.state_dir)?;
    let listener = api::bind(&config.api_socket).await?;
    mount::bpffs(&options.pin_dir).context("[agent] pin-dir")?;
    let pins = lock::pins(&options.pin_dir)?;
    let mut resolver = Resolver::new(root.clone())?;
    match containers::load(&config.agent.state_dir) {
        Ok(kept) => resolver.remember_containers(kept),
        Err(error) => tracing::warn!(%error, "containers"),
    }
    resolver.limit_hashing(config.agent.hash_limit, config.agent.hash_rate);
    let mut datapath = Datapath::open(options, pins)?;
    datapath.configure(settings(config)?, &config.failsafe);
    let directory = datapath.directory();
    let events = Events::open(&directory)?;
    let flow_map = FlowMap::open(&directory)?;
    let counts = Arc::new(Counts::open(&directory)?);

    let published = Published::new(status(config, &root, features));
    let deny_unselected = config.agent.unselected == Unselected::Deny;
    let mut engine = Engine::new(
        datapath,
        resolver,
        deny_unselected,
        config.agent.state_dir.clone(),
    );
    let first = first_policy(&mut engine, config)?;
    engine.refresh_addresses();
    // The sockets that are open have owners before they are judged, so that nobody is taken for someone else.
    engine.adopt_sockets();
    engine.datapath().attach()?;
    let frames = cover(&mut engine)?;
    save(&mut engine, &first);
    // Again for what was opened meanwhile.
    engine.adopt_sockets();
    for path in engine.datapath().retire_others()? {
        tracing::info!(?path, "took over from an agent of another version");
    }
    watch_executions(&mut engine);
    for warning in engine.datapath().warnings() {
        tracing::warn!(warning, "datapath");
    }
    let kernel_log = engine
        .datapath()
        .kernel_log()
        .inspect_err(|error| tracing::warn!(error, "no debug messages of the kernel programs"))
        .ok();
    let (flows, store) = flow::open(config.flows.capacity);
    let metrics = Metrics::new(flows.counters())?;
    publish(&published, &mut engine);
    show(&first, &published, &metrics);
    let answers = answers(config, &mut engine, &published, &metrics);
    let held = engine.controller().cloned();
    let (listening, endpoints) = listening(&engine, &published, &directory, config)?;
    let reconcile = reconcile::Task::new(&directory, flows.clone(), Arc::clone(&counts))?;
    Ok(Started {
        reconcile,
        endpoints,
        listening,
        engine,
        published,
        listener,
        metrics_listener,
        events,
        flow_map,
        kernel_log,
        counts,
        flows,
        store,
        metrics,
        synchronisation: config.controller.clone(),
        held,
        first,
        frames,
        answers,
        lock,
    })
}

/// Where metrics are served, if anywhere.
async fn listen(config: &Config) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = config.metrics else {
        return Ok(None);
    };
    let bound = TcpListener::bind(address).await;
    let bound = bound
        .with_context(|| format!("metrics can't listen on {address}; change [metrics] listen"))?;
    Ok(Some(bound))
}

/// Judges executables when they start, where the kernel can tell of that.
fn watch_executions(engine: &mut Engine) {
    if let Err(error) = engine.datapath().watch_executions() {
        tracing::warn!(
            error,
            "executables are judged at their first connection, not when they start"
        );
    }
}

/// Keeps the first policy for the next start, but for what is on trial.
fn save(engine: &mut Engine, first: &First) {
    if first.trial.is_some() {
        engine.save_controllers();
    } else {
        engine.save();
    }
}

/// Says what is not in force.
fn show(first: &First, published: &Published, metrics: &Metrics) {
    first.refusals.show(published, metrics);
    if let Some(note) = &first.note {
        tracing::warn!(note, "policy");
        metrics.policy_rolled_back();
    }
}

/// What the programs are told about refusals.
fn answering(config: &Config, features: &[features::Feature]) -> Answering {
    let named = |feature: &features::Feature| feature.name == features::CONNECT_ERRNO;
    let can_set_errno = features.iter().any(|it| named(it) && it.present);
    answers::answering(config.refusal, can_set_errno)
}

/// The task that answers what is refused, if the configuration asks for it and this host lets it; what has no effect
/// is a warning.
fn answers(
    config: &Config,
    engine: &mut Engine,
    published: &Published,
    metrics: &Metrics,
) -> Option<answers::Task> {
    let answering = engine.datapath().answering();
    let counts = metrics.answers().clone();
    let warn = |warning: String| {
        tracing::warn!(warning, "refusals");
        published.update_status(|status| status.warnings.push(warning));
    };
    if let Some(warning) = answers::without_errno(config.refusal, &answering) {
        warn(warning.to_owned());
    }
    let kind = answers::kind(config.refusal.remote)?;
    let answerer = Answerer::new(kind)
        .inspect_err(|error| warn(answers::without_sockets(error)))
        .ok()?;
    let refused = engine.datapath().refused();
    let refused = refused
        .inspect_err(|error| warn(format!("`[refusal] remote` has no effect: {error}")))
        .ok()?;
    Some(answers::Task::new(refused, answerer, &answering, counts))
}

/// Covers the devices of guarded processes.
fn cover(engine: &mut Engine) -> anyhow::Result<(Frames, Look)> {
    let mut frames = engine.datapath().frames()?;
    let look = frames.look();
    if let Some(error) = &look.failed {
        tracing::warn!(error, "some devices are not covered");
    }
    Ok((frames, look))
}

/// The task that looks where workloads listen.
fn listening(
    engine: &Engine,
    published: &Published,
    directory: &Path,
    config: &Config,
) -> anyhow::Result<(endpoints::Handle, endpoints::Task)> {
    let (handle, ends) = endpoints::channel();
    let root = endpoints::Root {
        path: engine.resolver().root().to_path_buf(),
        id: engine.resolver().root_id(),
        cgroups: published.cgroups(),
    };
    let (tables, policy) = (published.tables(), published.policy());
    let terms = endpoints::Terms {
        draft: config.agent.mode == Mode::Draft,
        failsafe: config.failsafe.clone(),
        boot_now_ns: clock::boot_now_ns,
    };
    let task = endpoints::Task::new(directory, root, tables, policy, terms, ends)?;
    Ok((handle, task))
}

/// The hooks as they are now.
#[must_use]
pub fn hooks(engine: &mut Engine) -> Vec<Hook> {
    let found: BTreeMap<_, _> = engine
        .datapath()
        .links()
        .iter()
        .filter_map(|link| link.info().map(|info| (link.name, info)))
        .collect();
    every_hook()
        .filter(|hook| hook.name != SOCKET.name || found.contains_key(SOCKET.name))
        .map(|hook| {
            let info = found.get(hook.name);
            Hook {
                name: hook.name.to_owned(),
                attached: info.is_some_and(|info| info.cgroup != 0),
                program_id: info.map_or(0, |info| info.program),
                link_id: info.map_or(0, |info| info.id),
            }
        })
        .collect()
}

fn publish(published: &Published, engine: &mut Engine) {
    published.set_policy(engine.view());
    if let Some(tables) = engine.tables() {
        published.set_tables(tables);
    }
    published.set_cgroups(engine.resolver().inventory());
    let hooks = hooks(engine);
    let generation = engine.datapath().tables.generation();
    let source = engine.source();
    let controller = engine.controller().map_or(0, |held| held.generation);
    let warnings = engine.datapath().warnings().to_vec();
    published.update_status(|status| {
        status.generation = u32::try_from(generation).unwrap_or(u32::MAX);
        status.applied = Some(SystemTime::now());
        status.policy_source = source;
        status.controller_generation = controller;
        status.hooks = hooks;
        status.warnings.extend(warnings);
    });
}

fn settings(config: &Config) -> anyhow::Result<Settings> {
    let draft = if config.agent.mode == Mode::Draft {
        DRAFT_MODE
    } else {
        0
    };
    let deny = if config.agent.unselected == Unselected::Deny {
        DENY_UNSELECTED
    } else {
        0
    };
    let stat = procfs_stat()?;
    Ok(Settings {
        flags: draft | deny,
        agent_tgid: std::process::id(),
        agent_start: stat,
        failsafe_len: u32::try_from(config.failsafe.len())?,
        hold_ticks: hold_ticks()?,
        pending_ns: u64::try_from(config.agent.pending.as_nanos())?,
        ..Settings::default()
    })
}

/// [`HOLD`] in ticks of the kernel. The coarse clock moves once a tick.
fn hold_ticks() -> anyhow::Result<u32> {
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).context("length of a tick")?;
    let ticks = HOLD.as_nanos() / Duration::from(tick).as_nanos().max(1);
    Ok(u32::try_from(ticks)?.max(1))
}

/// When this process started, as in `/proc/self/stat` (field 22).
fn procfs_stat() -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("/proc/self/stat")?;
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(19))
        .and_then(|field| field.parse().ok())
        .context("/proc/self/stat has no start time; is /proc mounted?")
}

fn status(config: &Config, root: &Path, features: Vec<features::Feature>) -> Status {
    Status {
        started: SystemTime::now(),
        cgroup_root: root.to_path_buf(),
        mode: config.agent.mode,
        generation: 0,
        applied: None,
        policy_source: PolicySource::Files,
        controller_generation: 0,
        controller_state: config
            .controller
            .as_ref()
            .map(|_| ControllerState::Connecting),
        controller_endpoint: String::new(),
        controller_error: None,
        policy_error: None,
        pending: None,
        features: features
            .into_iter()
            .map(|feature| Feature {
                name: feature.name.to_owned(),
                present: feature.present,
                required: feature.required,
                note: feature.note.to_string(),
            })
            .collect(),
        hooks: Vec::new(),
        counts: BTreeMap::new(),
        warnings: config.warnings.clone(),
    }
}
