//! State of the agent in plain types, as the tasks that know it publish it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::SystemTime};

use ringfence_common::abi::rule::{DENY_EGRESS, DENY_INGRESS, DENY_LISTEN, SELECTED};
use ringfence_policy::compile::{Compiled, Table};
use ringfence_proto::v1;

use super::{Context, changes, convert::timestamp};
use crate::{change::Pending, config::Mode};

/// State of the agent.
#[derive(Clone, Debug)]
pub struct Status {
    /// When the agent started.
    pub started: SystemTime,
    /// Directory that is guarded.
    pub cgroup_root: PathBuf,
    /// Whether denied traffic is stopped.
    pub mode: Mode,
    /// Generation in force, 0 = none yet.
    pub generation: u32,
    /// When it was applied.
    pub applied: Option<SystemTime>,
    /// Where it came from.
    pub policy_source: PolicySource,
    /// Generation of the controller's policy, 0 = none.
    pub controller_generation: u64,
    /// `None` without a controller.
    pub controller_state: Option<ControllerState>,
    /// Endpoint of the controller that is connected or tried.
    pub controller_endpoint: String,
    /// Why the controller is not connected, or what it sent that is no policy.
    pub controller_error: Option<String>,
    /// Why the newest policy is not in force, one reason a line; `None` when it is.
    pub policy_error: Option<String>,
    /// The change that waits to be confirmed.
    pub pending: Option<Pending>,
    /// What the kernel and the host offer.
    pub features: Vec<Feature>,
    /// Kernel programs.
    pub hooks: Vec<Hook>,
    /// Losses and failures in the kernel programs and in the agent, by name.
    pub counts: BTreeMap<String, u64>,
    /// Configuration and policy that deserve a second look.
    pub warnings: Vec<String>,
}

/// Where the policy in force came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicySource {
    /// The policy directory.
    Files,
    /// The controller.
    Controller,
    /// The last good policy of the controller, from disk.
    Cache,
}

/// Whether the controller is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControllerState {
    /// The stream is open.
    Connected,
    /// It is being tried.
    Connecting,
}

/// One thing that the kernel or the host must offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Name.
    pub name: String,
    /// Whether it is there.
    pub present: bool,
    /// Enforcement is impossible without it.
    pub required: bool,
    /// What is lost without it, and what to do.
    pub note: String,
}

/// One kernel program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name.
    pub name: String,
    /// Whether it is in force.
    pub attached: bool,
    /// Number of the program, 0 = none.
    pub program_id: u32,
    /// Number of the link, 0 = none.
    pub link_id: u32,
}

/// The answer to `GetStatus`.
pub(super) fn message(context: &Context) -> v1::GetStatusResponse {
    let status = context.status.borrow().clone();
    let policy = context.policy.borrow().clone();
    let flows = context.flows.counters();
    let mut counts: std::collections::HashMap<String, u64> =
        status.counts.clone().into_iter().collect();
    counts.extend([
        ("flow-queue-full".to_owned(), flows.queue_full()),
        ("live-table-full".to_owned(), flows.live_full()),
    ]);
    let source = match status.policy_source {
        PolicySource::Files => "files",
        PolicySource::Controller => "controller",
        PolicySource::Cache => "cache",
    };
    let controller = match status.controller_state {
        None => "",
        Some(ControllerState::Connected) => "connected",
        Some(ControllerState::Connecting) => "connecting",
    };
    v1::GetStatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: Some(timestamp(status.started)),
        cgroup_root: status.cgroup_root.display().to_string(),
        mode: status.mode.name().to_owned(),
        generation: status.generation,
        applied: status.applied.map(timestamp),
        policy_source: source.to_owned(),
        controller_generation: status.controller_generation,
        controller_state: controller.to_owned(),
        policy_error: status.policy_error.clone().unwrap_or_default(),
        features: status.features.iter().cloned().map(Into::into).collect(),
        hooks: status.hooks.iter().cloned().map(Into::into).collect(),
        counts,
        workloads: count(policy.set.workloads.len()),
        policies: count(policy.set.policies.len()),
        live_flows: u32::try_from(flows.live()).unwrap_or(u32::MAX),
        warnings: status.warnings.clone(),
        controller_endpoint: status.controller_endpoint.clone(),
        controller_error: status.controller_error.clone().unwrap_or_default(),
        restricted: count(restricted(&policy.compiled)),
        pending_change: status
            .pending
            .as_ref()
            .map(|pending| changes::pending(pending, (context.boot_now_ns)())),
    }
}

/// Workloads that can be denied something as things stand.
fn restricted(compiled: &Compiled) -> usize {
    let enforced = |flags: u16| move |table: &&Arc<Table>| table.header.enforced & flags != 0;
    let tables = || compiled.tables.values();
    let restricted = tables()
        .filter(enforced(DENY_EGRESS | DENY_INGRESS | DENY_LISTEN))
        .count();
    if !compiled.deny_unselected {
        return restricted;
    }
    let selected = tables().filter(enforced(SELECTED)).count();
    restricted + compiled.names.len().saturating_sub(selected)
}

impl From<Feature> for v1::Feature {
    fn from(feature: Feature) -> Self {
        Self {
            name: feature.name,
            present: feature.present,
            required: feature.required,
            // It is about the absence.
            note: if feature.present {
                String::new()
            } else {
                feature.note
            },
        }
    }
}

impl From<Hook> for v1::Hook {
    fn from(hook: Hook) -> Self {
        Self {
            name: hook.name,
            attached: hook.attached,
            program_id: hook.program_id,
            link_id: hook.link_id,
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
