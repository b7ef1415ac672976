//! Messages as JSON: fields named as in the .proto files, enums as words, times as RFC 3339.

use ringfence_proto::{text, v1};
use serde_json::{Value, json};

use super::words;

pub(super) fn flow(flow: &v1::Flow) -> Value {
    json!({
        "sequence": flow.sequence,
        "time": words::time(flow.time.as_ref()),
        "event": words::event(flow.event),
        "direction": words::direction(flow.direction),
        "protocol": words::protocol(flow.protocol),
        "source": flow.source.as_ref().map(end),
        "destination": flow.destination.as_ref().map(end),
        "process": flow.process.as_ref().map(|process| json!({
            "pid": process.pid,
            "uid": process.uid,
            "command": process.command,
            "executable": process.executable,
            "cgroup": process.cgroup,
        })),
        "enforced": flow.enforced.as_ref().map(decision),
        "draft": flow.draft.as_ref().map(decision),
        "decided_by_peer": flow.decided_by_peer,
        "peer_verified": flow.peer_verified,
        "revoked": flow.revoked,
        "forward_bytes": flow.forward_bytes,
        "reverse_bytes": flow.reverse_bytes,
        "duration_ns": flow.duration_ns,
        "never_established": flow.never_established,
        "rtt_us": flow.rtt_us,
        "cookie": flow.cookie,
        "generation": flow.generation,
    })
}

pub(super) fn status(status: &v1::GetStatusResponse, headline: &str) -> Value {
    let features = status.features.iter().map(|feature| {
        json!({
            "name": feature.name,
            "present": feature.present,
            "required": feature.required,
            "note": feature.note,
        })
    });
    let hooks = status.hooks.iter().map(|hook| {
        json!({
            "name": hook.name,
            "attached": hook.attached,
            "program_id": hook.program_id,
            "link_id": hook.link_id,
        })
    });
    json!({
        "headline": headline,
        "version": status.version,
        "started": words::time(status.started.as_ref()),
        "cgroup_root": status.cgroup_root,
        "mode": status.mode,
        "generation": status.generation,
        "applied": words::time(status.applied.as_ref()),
        "policy_source": status.policy_source,
        "controller_generation": status.controller_generation,
        "controller_state": status.controller_state,
        "controller_endpoint": status.controller_endpoint,
        "controller_error": status.controller_error,
        "policy_error": status.policy_error,
        "pending_change": status.pending_change.as_ref().map(change),
        "features": features.collect::<Vec<_>>(),
        "hooks": hooks.collect::<Vec<_>>(),
        "counts": status.counts,
        "workloads": status.workloads,
        "policies": status.policies,
        "restricted": status.restricted,
        "live_flows": status.live_flows,
        "warnings": status.warnings,
    })
}

/// A change of policy that is or was on trial.
pub(super) fn change(change: &v1::PendingChange) -> Value {
    json!({
        "applied": words::time(change.applied.as_ref()),
        "seconds_left": change.seconds_left,
        "uid": change.uid,
        "changed": change.changed,
        "removed": change.removed,
    })
}

/// A workload with its live processes and its endpoints.
pub(super) fn workload(
    workload: &v1::Workload,
    processes: &[&v1::LiveProcess],
    holders: &[&v1::LiveProcess],
    listeners: &[&v1::Endpoint],
) -> Value {
    json!({
        "name": workload.name,
        "identity": workload.identity,
        "labels": workload.labels,
        "selectors": workload.selectors,
        "cgroups": workload.cgroups,
        "location": workload.location,
        "policies": workload.policies,
        "sockets": processes.iter().map(|process| u64::from(process.sockets)).sum::<u64>(),
        "processes": processes.iter().map(|process| live(process)).collect::<Vec<_>>(),
        "holders": holders.iter().map(|process| live(process)).collect::<Vec<_>>(),
        "listeners": listeners.iter().map(|listener| endpoint(listener)).collect::<Vec<_>>(),
    })
}

pub(super) fn endpoint(endpoint: &v1::Endpoint) -> Value {
    json!({
        "workload": endpoint.workload,
        "identity": endpoint.identity,
        "protocol": words::protocol(endpoint.protocol),
        "address": text::address(&endpoint.address),
        "port": endpoint.port,
        "dual_stack": endpoint.dual_stack,
        "namespace": endpoint.namespace,
        "device": endpoint.device,
    })
}

pub(super) fn identity(identity: &v1::IdentityInfo) -> Value {
    json!({
        "identity": identity.identity,
        "name": identity.name,
        "kind": identity.kind,
        "labels": identity.labels,
        "processes": identity.processes,
        "cgroups": identity.cgroups,
    })
}

fn live(process: &v1::LiveProcess) -> Value {
    json!({
        "pid": process.pid,
        "command": process.command,
        "executable": process.executable,
        "executable_state": words::executable_state(process.executable_state),
        "uid": process.uid,
        "user": process.user,
        "cgroup": process.cgroup,
        "cgroup_id": process.cgroup_id,
        "identity": process.identity,
        "workload": process.workload,
        "network_namespace": process.network_namespace,
        "sockets": process.sockets,
        "sockets_of_others": process.sockets_of_others.iter().map(|owner| json!({
            "identity": owner.identity,
            "workload": owner.workload,
            "sockets": owner.sockets,
        })).collect::<Vec<_>>(),
        "selectors": process.selectors.iter().map(selector).collect::<Vec<_>>(),
    })
}

fn selector(check: &v1::SelectorMatch) -> Value {
    json!({
        "key": check.key,
        "matched": check.matched,
        "wanted": check.wanted,
        "found": check.found,
    })
}

pub(super) fn process(answer: &v1::ExplainProcessResponse) -> Value {
    let candidates = answer.candidates.iter().map(|candidate| {
        json!({
            "workload": candidate.workload,
            "identity": candidate.identity,
            "matched": candidate.matched,
            "criterion": candidate.criterion,
            "location": candidate.location,
            "selectors": candidate.selectors.iter().map(selector).collect::<Vec<_>>(),
        })
    });
    json!({
        "process": answer.process.as_ref().map(live),
        "reason": answer.reason,
        "executable_note": answer.executable_note,
        "candidates": candidates.collect::<Vec<_>>(),
        "more_candidates": answer.more_candidates,
        "flow": answer.flow.as_ref().map(explanation),
        "notes": answer.notes,
    })
}

pub(super) fn policy(policy: &v1::Policy) -> Value {
    json!({
        "name": policy.name,
        "mode": policy.mode,
        "applies_to": policy.applies_to,
        "workloads": policy.workloads,
        "rules": policy.rules,
        "not_before": policy.not_before.as_ref().map(|time| words::time(Some(time))),
        "not_after": policy.not_after.as_ref().map(|time| words::time(Some(time))),
        "location": policy.location,
    })
}

pub(super) fn explanation(answer: &v1::ExplainResponse) -> Value {
    let side = |side: &v1::Side| {
        json!({
            "workload": side.workload,
            "enforced": side.enforced.as_ref().map(decision),
            "draft": side.draft.as_ref().map(decision),
        })
    };
    json!({
        "allowed": answer.allowed,
        "notes": answer.notes,
        "egress": answer.egress.as_ref().map(side),
        "ingress": answer.ingress.as_ref().map(side),
    })
}

fn end(end: &v1::FlowEnd) -> Value {
    json!({
        "address": end.address,
        "port": end.port,
        "identity": end.identity,
        "workload": end.workload,
        "labels": end.labels,
    })
}

pub(super) fn decision(decision: &v1::Decision) -> Value {
    json!({
        "verdict": words::verdict(decision.verdict),
        "reason": decision.reason,
        "rule": decision.rule.as_ref().map(|rule| json!({
            "id": rule.id,
            "policy": rule.policy,
            "rule": rule.rule,
            "location": rule.location,
        })),
    })
}
