//! What a call or a socket of the traffic tool came to: one line of JSON on its standard output.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Result of one action of the traffic tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Process that acted.
    pub pid: u32,
    /// The step that was reached: `socket`, `bind`, `connect`, `listen`, `send`, `receive`, `done`.
    pub step: String,
    /// Name of the error number, as in `EPERM`; `timeout` when nothing came.
    pub error: Option<String>,
    /// Own address.
    pub local: Option<SocketAddr>,
    /// Peer's address, for servers.
    pub peer: Option<SocketAddr>,
    /// Payload bytes sent; for a held stream those that the peer gave back.
    pub sent: u64,
    /// Payload bytes received.
    pub received: u64,
    /// How long the action took, milliseconds.
    pub took_ms: u64,
}

impl Outcome {
    /// Whether everything that was asked for came to pass.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.error.is_none()
    }

    /// Whether `step` ended with the error `name`.
    #[must_use]
    pub fn failed(&self, step: &str, name: &str) -> bool {
        self.step == step && self.error.as_deref() == Some(name)
    }

    /// Panics unless it went well.
    #[track_caller]
    #[must_use]
    pub fn expect_ok(self, what: &str) -> Self {
        assert!(self.ok(), "{what}: {self:?}");
        self
    }

    /// Panics unless `step` was refused with EPERM.
    #[track_caller]
    #[must_use]
    pub fn expect_refused(self, step: &str, what: &str) -> Self {
        assert!(self.failed(step, "EPERM"), "{what}: {self:?}");
        self
    }
}
