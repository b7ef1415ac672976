//! The policy that is served: read from a directory, judged, numbered, remembered.
//!
//! One task owns it ([`Store::run`]); streams see it through a watch channel. What is invalid is never
//! published: the last valid policy stays. Generations rise and identities stay, over restarts too.

mod error;
mod state;
#[cfg(test)]
mod tests;
mod version;

pub use error::StoreError;
pub use version::Version;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use ringfence_documents::{Naming, Watch};
use ringfence_policy::{
    model::Document,
    parse::{lint, parse},
};
use tokio::{
    sync::{Notify, watch::Receiver, watch::Sender},
    task,
};
use tokio_util::sync::CancellationToken;

use state::State;

/// What the streams see.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The last valid policy; `None` if there has been none since the start.
    pub version: Option<Arc<Version>>,
    /// Why the directory is not served as it stands; empty when it is.
    pub error: String,
}

/// The owner of the served policy.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    state: State,
    published: Sender<Published>,
}

impl Store {
    /// Locks and reads the state directory and loads the policy for the first time.
    ///
    /// # Errors
    /// The state directory is in use, damaged or cannot be read. An invalid policy is no error: it is published.
    pub fn open(
        policy_dir: &Path,
        state_dir: &Path,
    ) -> Result<(Self, Receiver<Published>), StoreError> {
        let (published, receiver) = tokio::sync::watch::channel(Published::default());
        let mut store = Self {
            directory: policy_dir.to_owned(),
            state: State::open(state_dir)?,
            published,
        };
        store.reload();
        Ok((store, receiver))
    }

    /// Serves changes of the directory until cancelled.
    ///
    /// # Errors
    /// The kernel gives no inotify instance, or reading panicked.
    pub async fn run(
        mut self,
        reload: Arc<Notify>,
        cancel: CancellationToken,
    ) -> Result<(), StoreError> {
        let mut watch = Watch::new(&self.directory).map_err(StoreError::Inotify)?;
        loop {
            self = task::spawn_blocking(move || {
                self.reload();
                self
            })
            .await
            .map_err(StoreError::Panicked)?;
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = watch.changed() => {}
                () = reload.notified() => tracing::info!("reload requested"),
            }
        }
    }

    fn reload(&mut self) {
        let current = self.published.borrow().clone();
        match self.next(current.version.as_ref()) {
            Ok(None) if current.error.is_empty() => {}
            Ok(None) => {
                tracing::info!("policy directory is valid again and unchanged");
                self.published
                    .send_modify(|published| published.error.clear());
            }
            Ok(Some(version)) => {
                tracing::info!(
                    generation = version.generation,
                    documents = version.documents().len(),
                    identities = version.identities().len(),
                    "policy accepted"
                );
                drop(self.published.send_replace(Published {
                    version: Some(Arc::new(version)),
                    error: String::new(),
                }));
            }
            Err(error) => {
                let error = error.to_string();
                if error != current.error {
                    for line in error.lines() {
                        tracing::error!(error = line, "policy directory is refused");
                    }
                    self.published
                        .send_modify(|published| published.error = error);
                }
            }
        }
    }

    /// The version that the directory stands for; `None` if it is the current one.
    fn next(&mut self, current: Option<&Arc<Version>>) -> Result<Option<Version>, StoreError> {
        let documents = ringfence_documents::read(&self.directory, Naming::File)?;
        if current.is_some_and(|current| current.documents() == documents) {
            return Ok(None);
        }
        let workloads = judge(&documents)?;
        let version = self.state.accept(documents, &workloads)?;
        Ok(Some(version.following(current)))
    }
}

/// Names of the workloads of a valid policy.
fn judge(documents: &[Document]) -> Result<Vec<String>, StoreError> {
    let set = parse(documents).map_err(StoreError::Invalid)?;
    for warning in lint(&set, ::time::OffsetDateTime::now_utc()) {
        tracing::warn!(%warning, "policy deserves a second look");
    }
    Ok(set
        .workloads
        .iter()
        .map(|workload| workload.name.clone())
        .collect())
}
