//! `serve`: signals, systemd and the limit on open files around the controller.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

use crate::{config::Config, listen::tls::MAX_HANDSHAKES, serve::Controller};

pub(super) async fn run(path: &Path) -> Result<()> {
    let config = Config::load(path)?;
    raise_open_files(config.max_agents);
    let signals = Signals::new().context("cannot handle signals")?;
    let controller = Controller::start(&config).await?;
    let status = {
        let published = controller.published();
        let published = published.borrow();
        match &published.version {
            Some(version) => format!("serving generation {}", version.generation),
            None => format!("no valid policy: {}", published.error.replace('\n', "; ")),
        }
    };
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);

    let reload = Arc::new(Notify::new());
    let cancel = CancellationToken::new();
    let watching = tokio::spawn(signals.watch(Arc::clone(&reload), cancel.clone()));
    let result = controller.run(reload, cancel).await;
    watching.abort();
    result?;
    tracing::info!("stopped");
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn watch(mut self, reload: Arc<Notify>, cancel: CancellationToken) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
                _ = self.hangup.recv() => reload.notify_one(),
            }
        }
        tracing::info!("stopping");
        notify(&[NotifyState::Stopping]);
        cancel.cancel();
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

/// One file per agent and per handshake, and some for everything else: the usual soft limit is 1024.
fn raise_open_files(max_agents: usize) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    let wanted = (max_agents + MAX_HANDSHAKES) as u64 + 256;
    let raised = wanted.max(soft).min(hard);
    if setrlimit(Resource::RLIMIT_NOFILE, raised, hard).is_err() || raised < wanted {
        tracing::warn!(
            limit = raised,
            wanted,
            "open files are limited below max-agents; raise LimitNOFILE of the unit"
        );
    }
}
