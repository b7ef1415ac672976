//! Policy from the controller: one stream, verified here, applied elsewhere.
//!
//! [`run`] connects, verifies each update against what the host holds and hands it to the policy task
//! as an [`Update`]; the answer of that task is the ACK or NACK. Up go the endpoints of the host. [`cache`] keeps the last policy that was
//! applied over restarts; the policy task writes it. The rules of the wire are in `docs/wire.md`.
//!
//! Invariants: what is held advances only when the policy task says so; an older generation never
//! replaces a newer one; nothing that the controller sends can panic, or remove the policy in force.

mod backoff;
pub mod cache;
mod client;
mod connect;
mod error;
pub(crate) mod fuzz;
mod held;
mod report;
mod settings;
#[cfg(test)]
mod tests;
mod verify;

pub use cache::CacheError;
pub use client::run;
pub use connect::check;
pub use error::SyncError;
pub use held::Held;
pub use settings::{Endpoint, Settings, SettingsError, Tls};

use ringfence_policy::model::{Document, Identities};
use tokio::sync::oneshot;

/// A policy that passed every check of the wire, for the policy task to compile and apply.
#[derive(Debug)]
pub struct Update {
    /// The controller's generation.
    pub generation: u64,
    /// All documents, ordered by name.
    pub documents: Vec<Document>,
    /// Identity of every workload of the deployment.
    pub identities: Identities,
    /// `Ok` after the policy is in force, else why it is not; dropping it ends [`run`] with an error.
    pub reply: oneshot::Sender<Result<(), String>>,
}

/// How synchronisation is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Whether there is a stream.
    pub phase: Phase,
    /// The endpoint of the phase.
    pub endpoint: String,
    /// Generation held, 0 = none.
    pub generation: u64,
    /// Why there is no stream, or what the controller sent that is no policy; `None` when all is well.
    pub last_error: Option<String>,
    /// Why the controller's newest policy was not even handed on; `None` when it was.
    pub refused: Option<String>,
}

/// Whether there is a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Connecting, or waiting before the next attempt.
    #[default]
    Connecting,
    /// The stream is open.
    Connected,
}
