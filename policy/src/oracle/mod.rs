//! An independent judge of one packet, and random cases to compare with.
//!
//! Walks the valid policy as docs/policy-language.md words it: no tables, no keys, no merging, no
//! kernel time inside. Shares no code with [`crate::compile`], [`crate::explain`] or
//! `ringfence_common::logic`, so that a mistake in one shows as a difference. Slow on purpose.

mod fact;
mod generate;
mod matching;
mod rng;
#[cfg(test)]
mod tests;

pub use fact::Fact;
pub use generate::random_case;
pub use rng::SplitMix64;

use std::collections::BTreeSet;

use ringfence_common::abi::{Direction, Reason, Verdict, identity};
use time::{Duration, OffsetDateTime};

use crate::{
    compile::Context,
    explain::Query,
    model::{Identities, Policy, PolicySet, Rule, RuleKind, Workload},
};

/// What must come out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// By the enforced policies.
    pub enforced: Expected,
    /// By enforced and draft policies together.
    pub draft: Expected,
    /// What the case exercised.
    pub facts: BTreeSet<Fact>,
}

/// What must come out of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Allow or deny.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The rules that may be named as the one that decided; empty: none may be.
    pub rules: Vec<RuleName>,
    /// Until when the verdict holds (`CLOCK_BOOTTIME`, nanoseconds).
    pub until: u64,
}

/// Names a rule as [`crate::compile::RuleSource`] does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleName {
    /// Policy.
    pub policy: String,
    /// Section and position: `egress[0]`.
    pub section: String,
}

/// Judges one packet by walking the policy. `now_boot_ns` is not before the context's moment; rules
/// whose policy begins between the two are left out, as a compilation leaves them out.
#[must_use]
pub fn judge(
    set: &PolicySet,
    identities: &Identities,
    context: &Context,
    query: &Query,
    now_boot_ns: u64,
) -> Judgement {
    let mut facts = BTreeSet::new();
    let case = Case {
        set,
        identities,
        context,
        query,
        now: moment(context, now_boot_ns),
    };
    let enforced = case.layer(false, &mut facts);
    let draft = case.layer(true, &mut facts);
    if enforced.verdict != draft.verdict {
        let _ = facts.insert(Fact::DraftDiffers);
    }
    Judgement {
        enforced,
        draft,
        facts,
    }
}

struct Case<'a> {
    set: &'a PolicySet,
    identities: &'a Identities,
    context: &'a Context,
    query: &'a Query,
    now: OffsetDateTime,
}

impl Case<'_> {
    fn layer(&self, with_drafts: bool, facts: &mut BTreeSet<Fact>) -> Expected {
        let mut state = |fact| {
            let _ = facts.insert(fact);
        };
        if self.query.local == identity::HOST {
            state(Fact::Host);
            return without_rule(Verdict::Allow, Reason::AllowedHost);
        }
        let workload = self.workload();
        let selecting: Vec<&Policy> = self
            .set
            .policies
            .iter()
            .map(std::sync::Arc::as_ref)
            .filter(|policy| with_drafts || !policy.draft)
            .filter(|policy| workload.is_some_and(|workload| selects(policy, workload)))
            .collect();

        let mut matching = Vec::new();
        for policy in &selecting {
            for rule in &policy.rules {
                if rule.section.direction == self.query.direction
                    && matching::matches(rule, self.set, self.identities, self.query, &mut state)
                {
                    if policy
                        .not_before
                        .is_some_and(|from| from > self.context.now)
                    {
                        state(Fact::NotYet);
                    } else {
                        matching.push((*policy, rule));
                    }
                }
            }
        }
        matching::overlaps(&selecting, self.query, &mut state);

        let live = |kind| self.choose(&matching, kind, true);
        let allows = live(RuleKind::Allow);
        if let Some(denied) = live(RuleKind::Deny) {
            state(Fact::DenyRule);
            if allows.is_some() {
                state(Fact::DenyOverAllow);
            }
            return denied;
        }
        if self.choose(&matching, RuleKind::Deny, false).is_some() {
            state(Fact::DenyExpired);
        }
        if let Some(allowed) = allows {
            state(if self.query.direction == Direction::Listen {
                Fact::Listen
            } else {
                Fact::AllowRule
            });
            return allowed;
        }
        let to_itself =
            self.query.direction != Direction::Listen && self.query.peer == self.query.local;
        if to_itself {
            if workload.is_none_or(|workload| workload.allow_self) {
                state(Fact::SelfAllow);
                return without_rule(Verdict::Allow, Reason::AllowedSelf);
            }
            state(Fact::SelfRefused);
        }
        if selecting.is_empty() {
            return if self.context.deny_unselected {
                state(Fact::UnselectedDeny);
                without_rule(Verdict::Deny, Reason::DeniedUnselected)
            } else {
                state(Fact::UnselectedAllow);
                without_rule(Verdict::Allow, Reason::AllowedUnselected)
            };
        }
        if !selecting
            .iter()
            .any(|policy| restricts(policy, self.query.direction))
        {
            state(Fact::DirectionAllow);
            return without_rule(Verdict::Allow, Reason::AllowedDirection);
        }
        if let Some(expired) = self.choose(&matching, RuleKind::Allow, false) {
            let at_compilation = |(policy, _): &(&Policy, &Rule)| {
                policy.not_after.is_some_and(|end| end <= self.context.now)
            };
            if !matching.iter().all(at_compilation) {
                state(Fact::ExpiredWhileLoaded);
            }
            state(Fact::Expired);
            return expired;
        }
        state(Fact::DefaultDeny);
        without_rule(Verdict::Deny, Reason::DeniedDefault)
    }

    fn workload(&self) -> Option<&Workload> {
        let workloads = &mut self.set.workloads.iter().map(std::sync::Arc::as_ref);
        workloads.find(|workload| self.identities.get(&workload.name) == Some(&self.query.local))
    }

    /// What the rules of a kind say that hold now, or that have expired.
    fn choose(
        &self,
        matching: &[(&Policy, &Rule)],
        kind: RuleKind,
        live: bool,
    ) -> Option<Expected> {
        let of_kind = matching.iter().filter(|(policy, rule)| {
            let holds = policy.not_after.is_none_or(|end| self.now < end);
            rule.section.kind == kind && holds == live
        });
        let ends: Vec<_> = of_kind
            .clone()
            .map(|(policy, _)| self.end(policy))
            .collect();
        let until = ends.iter().copied().max()?;
        // Of several, the one that holds longest is named; of expired ones any.
        let named = of_kind.filter(|(policy, _)| !live || self.end(policy) == until);
        let rules = named.map(|(policy, rule)| RuleName {
            policy: policy.name.clone(),
            section: format!("{}[{}]", section(rule), rule.index),
        });
        let (verdict, reason) = match (kind, live) {
            (RuleKind::Deny, _) => (Verdict::Deny, Reason::DeniedByRule),
            (RuleKind::Allow, true) => (Verdict::Allow, Reason::AllowedByRule),
            (RuleKind::Allow, false) => (Verdict::Deny, Reason::DeniedExpired),
        };
        Some(Expected {
            verdict,
            reason,
            rules: rules.collect(),
            until: if live { until } else { u64::MAX },
        })
    }

    /// When the policy ends, in `CLOCK_BOOTTIME` nanoseconds.
    fn end(&self, policy: &Policy) -> u64 {
        policy.not_after.map_or(u64::MAX, |end| {
            let left = (end - self.context.now).whole_nanoseconds();
            u64::try_from(i128::from(self.context.boot_now_ns) + left).unwrap_or(0)
        })
    }
}

fn without_rule(verdict: Verdict, reason: Reason) -> Expected {
    Expected {
        verdict,
        reason,
        rules: Vec::new(),
        until: u64::MAX,
    }
}

fn moment(context: &Context, boot_ns: u64) -> OffsetDateTime {
    let passed = i128::from(boot_ns) - i128::from(context.boot_now_ns);
    let seconds = i64::try_from(passed / 1_000_000_000).unwrap_or(i64::MAX);
    let nanoseconds = i64::try_from(passed % 1_000_000_000).unwrap_or(0);
    context.now + Duration::seconds(seconds) + Duration::nanoseconds(nanoseconds)
}

fn selects(policy: &Policy, workload: &Workload) -> bool {
    let carried = |(key, value)| workload.labels.get(key) == Some(value);
    policy.applies_to.iter().all(carried)
}

fn restricts(policy: &Policy, direction: Direction) -> bool {
    policy.default_deny.contains(&direction)
        || policy
            .rules
            .iter()
            .any(|rule| rule.section.direction == direction)
}

fn section(rule: &Rule) -> String {
    let direction = match rule.section.direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
        Direction::Listen => "listen",
    };
    match rule.section.kind {
        RuleKind::Allow => direction.to_owned(),
        RuleKind::Deny => format!("deny-{direction}"),
    }
}
