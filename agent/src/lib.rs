//! The Ringfence agent: identities and policy into the kernel, flow records out of it.
//!
//! Policy: [`sync`], a directory or a [`change`] by command -> `ringfence_policy` -> [`datapath`]. Identity: [`identity`] ->
//! [`datapath`]; what a container is: [`runtime`]. Telemetry: [`datapath`] -> [`flow`] -> [`api`] and [`metrics`].
//! Endpoints: [`datapath`] -> [`endpoints`] -> [`api`] and [`sync`]. `app` wires the tasks.

pub mod api;
mod app;
pub mod change;
pub mod cli;
pub mod config;
pub mod datapath;
pub mod endpoints;
pub mod flow;
pub mod fuzz;
pub mod identity;
pub mod metrics;
pub mod privileges;
pub mod runtime;
pub mod sealed;
pub mod sync;

pub use app::run_agent;
