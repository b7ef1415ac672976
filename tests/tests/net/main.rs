//! Behaviour on the running kernel, seen from real processes in cgroups of their own.
//!
//! What a test expects to be blocked is shown to pass first: without the agent, or before the policy.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

mod addresses;
mod adopt;
mod answered;
mod apply;
mod cheat;
mod cheat_digest;
mod cheat_names;
mod cheat_process;
mod configuration;
mod container;
mod controller;
mod detach;
mod device;
mod draft;
mod endpoints;
mod executable;
mod expiry;
mod explain;
mod failing_bind;
mod failsafe;
mod flood;
mod folded;
mod frames;
mod frames_forwarded;
mod generations;
mod group;
mod half_open;
mod hidden;
mod icmp;
mod impostor;
mod inventory;
mod listen;
mod multicast;
mod newborn;
mod options;
mod own_channel;
mod ownership;
mod ownership_adopted;
mod ownership_kept;
mod ownership_listener;
mod ownership_stage;
mod podman;
mod policy_dir;
mod privileges;
mod refusal;
mod refusal_flood;
mod restart;
mod revoke;
mod rules;
mod runtimes;
mod signals;
mod sockets;
mod storm;
mod swarm;
mod taken;
mod tcp;
mod tied;
mod udp;
mod unseen;
mod user_unit;
mod world;
