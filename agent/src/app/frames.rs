//! The task that keeps every device covered whose frames would go past the cgroup hooks.

use std::time::Duration;

use anyhow::Context as _;
use tokio::{
    sync::watch,
    task::block_in_place,
    time::{interval, sleep},
};

use crate::{
    datapath::{Frames, frames::Look, poll},
    metrics::Metrics,
};

/// How often all network namespaces are looked at; one that is known tells of its new devices.
const TICK: Duration = Duration::from_secs(1);
/// Notices come in crowds: what is said within this time is one.
const CROWD: Duration = Duration::from_millis(10);

/// What the looks came to, since the start.
pub type State = Look;

/// Owner of the links.
pub struct Task {
    frames: Frames,
    shown: watch::Sender<State>,
    metrics: Metrics,
}

impl Task {
    /// Takes over the links after a first look.
    #[must_use]
    pub fn new(
        (frames, first): (Frames, Look),
        metrics: Metrics,
    ) -> (Self, watch::Receiver<State>) {
        let (shown, state) = watch::channel(first);
        let task = Self {
            frames,
            shown,
            metrics,
        };
        (task, state)
    }

    /// Looks whenever something changes.
    ///
    /// # Errors
    /// The notices can't be waited for.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let notices = self.frames.notices().descriptor();
        let notices = notices
            .and_then(poll::register)
            .context("notices of devices; raise the limit of open files")?;
        let mut tick = interval(TICK);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                ready = notices.readable() => {
                    let mut ready = ready?;
                    sleep(CROWD).await;
                    self.frames.notices().drain();
                    ready.clear_ready();
                }
            }
            let look = block_in_place(|| self.frames.look());
            self.show(look);
        }
    }

    fn show(&self, look: Look) {
        if look.reattached > 0 {
            tracing::error!(
                devices = look.reattached,
                "programs were detached from devices by someone else; they are attached again"
            );
        }
        if look.repinned > 0 {
            tracing::warn!(
                pins = look.repinned,
                "pins of devices were removed by someone else; they are there again"
            );
        }
        self.metrics.repaired(look.reattached, look.repinned);
        let _ = self.shown.send_if_modified(|shown| {
            let before = shown.clone();
            if let Some(error) = &look.failed
                && look.failed != before.failed
            {
                tracing::warn!(error, "some devices are not covered");
            }
            *shown = Look {
                reattached: before.reattached + look.reattached,
                repinned: before.repinned + look.repinned,
                ..look
            };
            *shown != before
        });
    }
}

/// What deserves a second look.
#[must_use]
pub fn warning(state: &State) -> Option<String> {
    let why = state.failed.as_ref()?;
    Some(format!(
        "frames of packet sockets are not judged on some devices: {why}; take CAP_NET_RAW away from workloads that a \
         policy restricts"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_covered_is_warned_of() {
        assert_eq!(warning(&State::default()), None);
        let state = State {
            failed: Some("no tcx links".to_owned()),
            ..State::default()
        };
        let text = warning(&state).unwrap_or_default();
        assert!(
            text.contains("no tcx links") && text.contains("CAP_NET_RAW"),
            "{text}"
        );
    }
}
