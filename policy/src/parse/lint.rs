//! What is valid but hardly meant.

use std::{collections::BTreeMap, sync::Arc};

use ringfence_common::abi::{Direction, identity::REMOTE_HOST};
use time::OffsetDateTime;

use super::Diagnostic;
use crate::model::{Peer, Policy, PolicySet, Rule, RuleKind, Workloads};

/// Warnings: a policy or peer that selects nothing, an empty list, a policy without rules or whose
/// rules have expired at `now`, a workload that is cut off by deny rules alone. Ordered by document
/// and line.
#[must_use]
pub fn lint(set: &PolicySet, now: OffsetDateTime) -> Vec<Diagnostic> {
    Lint::default().next(set, now).all()
}

/// The warnings about a set; those about another are found at the price of what differs.
#[derive(Clone, Debug, Default)]
pub struct Lint {
    set: PolicySet,
    /// By the name of the policy, where there are some.
    of_policy: BTreeMap<String, Vec<Diagnostic>>,
    only_denied: Vec<Diagnostic>,
    /// Policies that deny something.
    denying: usize,
}

impl Lint {
    /// The warnings about another set, as [`lint`] finds them.
    #[must_use]
    pub fn next(&self, set: &PolicySet, now: OffsetDateTime) -> Self {
        let fresh = Self {
            set: PolicySet {
                workloads: set.workloads.clone(),
                ..PolicySet::default()
            },
            ..Self::default()
        };
        let same = set.workloads.is(&self.set.workloads);
        let before = if same { self } else { &fresh };
        let (gone, new) = before.set.difference(set);
        let mut of_policy = before.of_policy.clone();
        let mut denying = before.denying;
        for policy in gone {
            let _ = of_policy.remove(&policy.name);
            denying -= usize::from(denies(policy));
        }
        for policy in new {
            let found = lint_policy(&set.workloads, policy, now);
            if !found.is_empty() {
                let _ = of_policy.insert(policy.name.clone(), found);
            }
            denying += usize::from(denies(policy));
        }
        Self {
            set: set.clone(),
            of_policy,
            only_denied: if denying > 0 {
                only_denied(set)
            } else {
                Vec::new()
            },
            denying,
        }
    }

    /// Ordered by document and line.
    #[must_use]
    pub fn all(&self) -> Vec<Diagnostic> {
        let mut all: Vec<_> = self.of_policy.values().flatten().cloned().collect();
        all.extend_from_slice(&self.only_denied);
        all.sort();
        all
    }
}

fn denies(policy: &Policy) -> bool {
    let mut kinds = policy.rules.iter().map(|rule| rule.section.kind);
    kinds.any(|kind| kind == RuleKind::Deny)
}

fn lint_policy(index: &Workloads, policy: &Policy, now: OffsetDateTime) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut warn = |line, message: String, remedy: &str| {
        found.push(Diagnostic {
            file: policy.file.clone(),
            line,
            message,
            remedy: remedy.to_owned(),
        });
    };
    if index.select(&policy.applies_to).is_empty() {
        warn(
            policy.line,
            format!("policy {:?} selects no workload", policy.name),
            "correct `applies-to`, or declare the workload",
        );
    }
    if policy.rules.is_empty() && policy.default_deny.is_empty() {
        warn(
            policy.line,
            format!("policy {:?} has no rules", policy.name),
            "add rules or `default-deny`, or remove it",
        );
    }
    if policy.not_after.is_some_and(|end| end <= now) {
        warn(
            policy.line,
            format!(
                "the rules of policy {:?} have expired, and it goes on to restrict its workloads",
                policy.name
            ),
            "correct `not-after`, or remove the policy",
        );
    }
    for rule in &policy.rules {
        lint_rule(index, policy, rule, &mut warn);
    }
    found
}

fn lint_rule(
    index: &Workloads,
    policy: &Policy,
    rule: &Rule,
    warn: &mut impl FnMut(usize, String, &str),
) {
    let place = || {
        format!(
            "{} of policy {:?}",
            rule.section.place(rule.index),
            policy.name
        )
    };
    if rule.peers.as_ref().is_some_and(Vec::is_empty) {
        warn(
            rule.line,
            format!("the empty peer list of {} matches nothing", place()),
            "name a peer, or leave the key out to match every peer",
        );
    }
    if rule.ports.as_ref().is_some_and(Vec::is_empty) {
        warn(
            rule.line,
            format!("the empty ports list of {} matches nothing", place()),
            "name a port, or leave the key out to match every port",
        );
    }
    if rule.peers.iter().flatten().any(is_remote_host) {
        warn(
            rule.line,
            format!(
                "`remote-host` in {} matches nobody: no identity of another host is known here",
                place()
            ),
            "name its addresses with `cidr`, or use `world`",
        );
    }
    for peer in rule.peers.iter().flatten() {
        if let Peer::Labels { labels, .. } = peer
            && index.select(labels).is_empty()
        {
            let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            warn(
                rule.line,
                format!(
                    "labels {} in {} match no workload",
                    labels.join(", "),
                    place()
                ),
                "correct them, or declare the workload",
            );
        }
    }
}

fn is_remote_host(peer: &Peer) -> bool {
    matches!(peer, Peer::Entity(entity) if *entity == REMOTE_HOST)
}

/// Policies whose deny rules cut a workload off, because nothing that selects it allows anything.
fn only_denied(set: &PolicySet) -> Vec<Diagnostic> {
    let mut of_workload: Vec<Vec<&Arc<Policy>>> = vec![Vec::new(); set.workloads.len()];
    for policy in &set.policies {
        for position in set.workloads.select(&policy.applies_to) {
            if let Some(policies) = of_workload.get_mut(position) {
                policies.push(policy);
            }
        }
    }
    let mut found = Vec::new();
    for policies in of_workload {
        for direction in [Direction::Egress, Direction::Ingress, Direction::Listen] {
            let meant = policies.iter().any(|policy| {
                policy.default_deny.contains(&direction)
                    || first_rule(policy, direction, RuleKind::Allow).is_some()
            });
            let denying = policies.iter().filter(|_| !meant);
            found.extend(denying.filter_map(|policy| cut_off(policy, direction)));
        }
    }
    found.sort();
    found.dedup();
    found
}

fn first_rule(policy: &Policy, direction: Direction, kind: RuleKind) -> Option<&Rule> {
    let sought = |rule: &&Rule| rule.section.direction == direction && rule.section.kind == kind;
    policy.rules.iter().find(sought)
}

fn cut_off(policy: &Policy, direction: Direction) -> Option<Diagnostic> {
    let rule = first_rule(policy, direction, RuleKind::Deny)?;
    let section = rule.section.name();
    Some(Diagnostic {
        file: policy.file.clone(),
        line: rule.line,
        message: format!(
            "`{section}` makes the workloads of policy {:?} default-deny and nothing allows them anything",
            policy.name
        ),
        remedy: format!(
            "allow what they need with `[[policy.{}]]` (an empty one allows everything that is not denied)",
            section.trim_start_matches("deny-")
        ),
    })
}
