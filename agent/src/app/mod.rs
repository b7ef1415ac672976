//! Wires the agent: what starts in which order, which task owns what, and how it ends.
//!
//! One task owns policy and identity ([`policy`]), one the event ring ([`events`]), one the flow log; the
//! interfaces only read what those publish. A task that ends unexpectedly ends the agent with an error;
//! enforcement goes on without it, because every hook is pinned.

mod answers;
mod changes;
mod clock;
mod confirmed;
mod containers;
mod documents;
mod engine;
mod events;
mod first;
mod frames;
mod last_good;
mod newest;
mod policy;
mod preview;
mod publish;
mod questions;
mod reconcile;
mod refusals;
mod revoke;
mod start;
mod trial;
mod warnings;

use std::{io::IsTerminal as _, path::Path, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use ringfence_proto::text;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::Level;
use tracing_subscriber::{
    filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{
    api,
    change::Command,
    config::{self, Config, LogFormat, Mode, RemoteRefusal},
    datapath::{KernelLog, heap},
    flow,
    metrics::{self, KernelCounts},
    privileges, runtime, sync,
};

/// Questions about containers that wait at most.
const CONTAINER_QUESTIONS: usize = 256;

/// Commands of operators that wait at most.
const COMMANDS: usize = 16;

/// Time that tasks have to end after a signal.
const GRACE: Duration = Duration::from_secs(5);

/// Runs the agent with the configuration at `path` until it is told to end.
#[must_use]
pub fn run_agent(path: &Path) -> ExitCode {
    // First of all: nothing is read or started with more.
    let dropped = privileges::drop_others();
    heap::share();
    let config = match config::load(path) {
        Ok(config) => config,
        Err(error) => return fail(&anyhow!(error)),
    };
    start_log(&config);
    for warning in &config.warnings {
        tracing::warn!(warning, "configuration");
    }
    let dropped = match config.refusal.remote {
        RemoteRefusal::Drop => dropped.and(privileges::drop_sending()),
        RemoteRefusal::Reset | RemoteRefusal::Prohibited => dropped,
    };
    if let Err(error) = dropped {
        tracing::warn!(error, "privileges that are not needed could not be dropped");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow!(error)),
    };
    let result = runtime.block_on(run(config));
    runtime.shutdown_timeout(GRACE);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the last word of a daemon that could not start"
)]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("ringfence: {}", text::causes(error.as_ref()));
    ExitCode::FAILURE
}

fn start_log(config: &Config) {
    // The libraries' own messages matter only when something is wrong.
    let level = config.log.level;
    let filter = Targets::new()
        .with_default(level.min(Level::WARN))
        .with_target("ringfence_agent", level)
        .with_target("ringfence_ebpf", level);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    // A second logger can't be installed; the first one stays.
    let _ = match config.log.format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json()).try_init(),
    };
}

async fn keep_flows(store: flow::Store) -> anyhow::Result<()> {
    store.run().await;
    Err(anyhow!("the flow log ended"))
}

async fn kernel_messages(log: KernelLog) -> anyhow::Result<()> {
    match log.run().await {
        Err(error) => Err(anyhow!(error).context("debug messages of the kernel programs")),
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    let cancel = CancellationToken::new();
    // From now on: a reload while the agent starts must not end it.
    let hangup = signal(SignalKind::hangup())?;
    let started = start::start(&config).await?;
    let (ask, commands) = mpsc::channel(COMMANDS);
    let context = context(&config, &started, ask);
    // Held to the end: it keeps a second agent away.
    let _lock = started.lock;
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();

    let _ = tasks.spawn(until(&cancel, keep_flows(started.store)));
    let _ = tasks.spawn(until(&cancel, started.endpoints.run()));
    let _ = tasks.spawn(until(&cancel, started.reconcile.run()));
    if let Some(log) = started.kernel_log {
        let _ = tasks.spawn(until(&cancel, kernel_messages(log)));
    }
    let (frames, covered) = frames::Task::new(started.frames, started.metrics.clone());
    let _ = tasks.spawn(until(&cancel, frames.run()));
    if let Some(answers) = started.answers {
        let _ = tasks.spawn(until(&cancel, answers.run()));
    }
    let (revoke, revocations) = mpsc::channel(revoke::QUEUE);
    let _ = tasks.spawn(until(&cancel, revoke::run(revocations)));
    // What waits, waits in the reader, where it has turns.
    let (questions, asked) = mpsc::channel(1);
    let reader = events::Reader::new(
        started.events,
        started.flow_map,
        started.flows.clone(),
        &started.published,
        started.metrics.clone(),
        questions,
        revoke.clone(),
    );
    let _ = tasks.spawn(until(&cancel, reader.run()));
    let served = started.metrics_listener.map(|listener| {
        let counts = Arc::clone(&started.counts);
        let source = move || KernelCounts {
            counts: counts.counts(),
            reasons: counts.reasons(),
        };
        let status = started.published.status();
        metrics::serve(
            listener,
            started.metrics.clone(),
            source,
            status,
            cancel.clone(),
        )
    });
    let (updates, received) = mpsc::channel(1);
    let (adopted, adoptions) = watch::channel(None);
    if let Some(settings) = started.synchronisation {
        let state = started.published.sync_sender();
        let (held, cancel) = (started.held, cancel.clone());
        let endpoints = started.listening.latest();
        let _ = tasks.spawn(async move {
            sync::run(settings, held, updates, adoptions, endpoints, state, cancel)
                .await
                .context("synchronisation with the controller")
        });
    }
    let runtimes = ask_runtimes(&config, &mut tasks, &cancel);
    let mut policy = policy::Task {
        engine: started.engine,
        policy_dir: config.agent.policy_dir.clone(),
        spared: revoke::Spared {
            all: config.agent.mode == Mode::Draft,
            failsafe: config.failsafe.clone(),
        },
        configured: started.published.status().borrow().warnings.clone(),
        published: started.published,
        metrics: started.metrics,
        counts: started.counts,
        flows: started.flows,
        controller: config.controller.is_some(),
        unmatched: warnings::Unmatched::default(),
        found: started.first.found,
        refusals: started.first.refusals,
        trial: started.first.trial,
        note: started.first.note,
        commands,
        endpoints: started.listening,
        updates: received,
        adopted,
        asked,
        runtimes,
        hangup,
        revoke,
        covered,
    };
    // Nobody is answered before there is everything to tell.
    policy.show();
    let _ = tasks.spawn(serve_api(context, started.listener, cancel.clone()));
    if let Some(metrics) = served {
        let _ = tasks.spawn(async move {
            metrics.await;
            Ok(())
        });
    }
    let _ = tasks.spawn(policy.run(cancel.clone()));

    until_the_end(tasks, &cancel).await
}

/// Says that enforcement is in place, waits until a task or a signal ends it, and ends what still runs.
async fn until_the_end(
    mut tasks: JoinSet<anyhow::Result<()>>,
    cancel: &CancellationToken,
) -> anyhow::Result<()> {
    tracing::info!("enforcement is in place");
    notify(&[sd_notify::NotifyState::Ready]);
    let result = wait(&mut tasks, cancel).await;
    notify(&[sd_notify::NotifyState::Stopping]);
    cancel.cancel();
    // Enforcement stays: links, programs and maps are pinned.
    let _ = tokio::time::timeout(GRACE, async {
        while let Some(ended) = tasks.join_next().await {
            drop(ended);
        }
    })
    .await;
    result
}

/// What the gRPC interface tells of.
fn context(
    config: &Config,
    started: &start::Started,
    changes: mpsc::Sender<Command>,
) -> api::Context {
    api::Context {
        changes,
        status: started.published.status(),
        policy: started.published.policy(),
        failsafe: config.failsafe.clone().into(),
        flows: started.flows.clone(),
        tables: started.published.tables(),
        endpoints: started.listening.clone(),
        hash_limit: config.agent.hash_limit,
        boot_now_ns: clock::boot_now_ns,
    }
}

/// Starts the task that asks container runtimes.
fn ask_runtimes(
    config: &Config,
    tasks: &mut JoinSet<anyhow::Result<()>>,
    cancel: &CancellationToken,
) -> containers::Runtimes {
    let (questions, asked) = mpsc::channel(CONTAINER_QUESTIONS);
    let (answer, answers) = mpsc::channel(CONTAINER_QUESTIONS);
    let (state, states) = watch::channel(Vec::new());
    let settings = config.containers.clone();
    let _ = tasks.spawn(until(cancel, async move {
        runtime::run(settings, asked, answer, state).await;
        Err(anyhow!("the task that asks container runtimes ended"))
    }));
    containers::Runtimes {
        questions,
        answers,
        states,
    }
}

/// Ends a task that has no end of its own.
fn until<T>(
    cancel: &CancellationToken,
    task: T,
) -> impl Future<Output = anyhow::Result<()>> + use<T>
where
    T: Future<Output = anyhow::Result<()>>,
{
    let cancel = cancel.clone();
    async move { cancel.run_until_cancelled(task).await.unwrap_or(Ok(())) }
}

async fn serve_api(
    context: api::Context,
    listener: api::Listener,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    api::serve(context, listener, cancel).await.context("gRPC")
}

/// Until a signal says stop, or a task ends that should not.
async fn wait(
    tasks: &mut JoinSet<anyhow::Result<()>>,
    cancel: &CancellationToken,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: the agent ends, enforcement stays"),
        _ = interrupt.recv() => tracing::info!("SIGINT: the agent ends, enforcement stays"),
        ended = tasks.join_next() => match ended {
            Some(Ok(Ok(()))) | None => return Err(anyhow!("a task ended; enforcement stays")),
            Some(Ok(Err(error))) => return Err(error),
            Some(Err(error)) => return Err(anyhow!(error).context("a task failed")),
        },
        () = cancel.cancelled() => {}
    }
    Ok(())
}

/// Tells systemd, if it asked to be told.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd can't be notified");
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use anyhow::anyhow;

    use ringfence_proto::text::causes;

    use crate::datapath::lock::LockError;

    #[test]
    fn a_cause_is_told_once() {
        let lock = LockError::Io {
            path: PathBuf::from("/a/agent.lock"),
            source: std::io::ErrorKind::NotFound.into(),
        };
        let told = causes(anyhow!(lock).context("start").as_ref());
        let expected = "start: cannot lock /a/agent.lock: entity not found; it must exist and be writable for the agent";
        assert_eq!(told, expected);
        assert_eq!(causes(anyhow!("b").context("a").as_ref()), "a: b");
    }
}
