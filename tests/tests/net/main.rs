//! Behaviour on the running kernel, seen from real processes in cgroups of their own.
//!
//! What a test expects to be blocked is shown to pass first: without the agent, or before the policy.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

mod addresses;
mod adopt;
mod configuration;
mod controller;
mod detach;
mod device;
mod draft;
mod executable;
mod expiry;
mod explain;
mod flood;
mod group;
mod icmp;
mod impostor;
mod listen;
mod newborn;
mod policy_dir;
mod restart;
mod revoke;
mod rules;
mod sockets;
mod storm;
mod tcp;
mod udp;
mod world;
