//! Numbers of rules.

use std::collections::BTreeSet;

use super::{POLICY, compiled, set};
use crate::compile::rule_id::RuleIds;

const OTHER: &str = "[[policy]]\nname = \"other\"\napplies-to = { app = \"db\" }\n[[policy.egress]]\n[[policy.egress]]\n[[policy.listen]]\n";

#[test]
fn numbers_do_not_depend_on_other_policies() {
    let alone = compiled(&format!(
        "{POLICY}[[policy.egress]]\n[[policy.deny-egress]]\n"
    ))
    .rules;
    let among = compiled(&format!(
        "{OTHER}{POLICY}[[policy.egress]]\n[[policy.deny-egress]]\n"
    ))
    .rules;
    assert_eq!(alone.len(), 2);
    assert_eq!(among.len(), 5);
    for (id, source) in alone {
        assert!((1..1 << 31).contains(&id));
        assert_eq!(among[&id].section, source.section);
    }
}

#[test]
fn numbers_name_their_source() {
    let rules = compiled(&format!(
        "{POLICY}[[policy.egress]]\n[[policy.deny-egress]]\n"
    ))
    .rules;
    let shown: BTreeSet<_> = rules
        .values()
        .map(|rule| {
            (
                rule.policy.as_str(),
                rule.section.as_str(),
                rule.file.as_str(),
                rule.line,
            )
        })
        .collect();
    let expected = [
        ("p", "deny-egress[0]", "a.toml", 14),
        ("p", "egress[0]", "a.toml", 13),
    ];
    assert_eq!(shown, BTreeSet::from(expected));
}

#[test]
fn collisions_take_the_next_free_number_in_the_order_of_names() {
    let mut set = set(&format!("{OTHER}{POLICY}[[policy.egress]]\n"));
    let forward = RuleIds::with_hash(&set, |_| 41);
    assert_eq!(forward.of_policy(0), [42, 43, 44]);
    assert_eq!(forward.of_policy(1), [45]);
    set.policies.reverse();
    let backward = RuleIds::with_hash(&set, |_| 41);
    assert_eq!(backward.of_policy(1), [42, 43, 44]);
    assert_eq!(backward.of_policy(0), [45]);
}

#[test]
fn the_highest_number_is_followed_by_the_lowest() {
    let set = set(OTHER);
    let ids = RuleIds::with_hash(&set, |_| (1 << 31) - 2);
    assert_eq!(ids.of_policy(0), [(1 << 31) - 1, 1, 2]);
}
