//! What the root tests and the demo share: sandboxes, processes that talk, agents and controllers.
//!
//! Owns everything that a test makes on the host: cgroups, pins, namespaces, processes, files. A
//! [`Sandbox`] removes all of it, also when the test panics. Traffic stays inside namespaces made here.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "support for tests: what can't be set up fails the test by panicking"
)]

pub mod actor;
pub mod agent;
pub mod client;
pub mod container;
pub mod containerd;
pub mod controller;
pub mod daemon;
pub mod flows;
pub mod foreign;
pub mod kernel;
pub mod metrics;
pub mod mounts;
pub mod namespace;
pub mod outcome;
pub mod podman;
pub mod policy;
pub mod poll;
pub mod program;
pub mod running;
pub mod sandbox;
pub mod scene;
pub mod soak;
pub mod steps;
pub mod usage;

pub use actor::Actor;
pub use agent::{Agent, Options};
pub use container::Container;
pub use containerd::Containerd;
pub use controller::Controller;
pub use outcome::Outcome;
pub use podman::Podman;
pub use running::Running;
pub use sandbox::Sandbox;
pub use scene::scene;
pub use steps::Steps;
