//! Attempts to get round a policy: each succeeds without Ringfence and fails with it, with its reason in the
//! flow log. docs/threat-model.md lists them, and those that other tests make.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod addresses;
mod attempt;
mod datagrams;
mod ground;
mod headers;
mod listeners;
mod named;
mod namespaces;
mod older;
mod ownership;
mod policies;
mod protocols;
mod revoked;
mod streams;
mod threat_model;
