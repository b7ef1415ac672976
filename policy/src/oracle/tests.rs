//! The compiler, the tables and the kernel's look-up against the independent judge.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use ringfence_common::logic::verdict::Outcome;

use super::{Expected, Fact, judge, random_case};
use crate::{
    compile::{Compiled, compile},
    explain::answer,
};

const CASES: u64 = 1_000;
/// Start elsewhere with `RINGFENCE_SEED=n`, to search further than a test run does.
const SEED: &str = "RINGFENCE_SEED";
/// How often every fact must have been seen.
const OFTEN: usize = 20;
const HALF_AN_HOUR_NS: u64 = 30 * 60 * 1_000_000_000;

#[test]
fn compiled_tables_agree_with_the_oracle() {
    let mut reached = BTreeMap::<Fact, usize>::new();
    let mut pairs = 0;
    let first: u64 = std::env::var(SEED).map_or(0, |text| text.parse().unwrap());
    for seed in first..first + CASES {
        let (set, identities, context, queries) = random_case(seed);
        let compiled = compile(&set, &identities, &context).unwrap();
        for query in &queries {
            for passed in [0, HALF_AN_HOUR_NS] {
                let now = context.boot_now_ns + passed;
                let expected = judge(&set, &identities, &context, query, now);
                let found = answer(&compiled, query, now);
                let same = agrees(&compiled, &expected.enforced, found.enforced)
                    && agrees(&compiled, &expected.draft, found.draft);
                assert!(
                    same,
                    "seed {seed}, {passed} ns later\n{query:#?}\nexpected {expected:#?}\nfound {found:#?}\n{set:#?}\n{compiled:#?}"
                );
                pairs += 1;
                for fact in expected.facts {
                    *reached.entry(fact).or_default() += 1;
                }
            }
        }
    }
    assert!(pairs >= 10_000, "{pairs} pairs");
    for fact in Fact::ALL {
        let times = reached.get(fact).copied().unwrap_or(0);
        assert!(
            times >= OFTEN,
            "{fact:?} reached {times} times of {pairs}: {reached:#?}"
        );
    }
}

#[test]
fn a_case_is_its_seed() {
    assert_eq!(random_case(7), random_case(7));
    assert_ne!(random_case(7).3, random_case(8).3);
}

fn agrees(compiled: &Compiled, expected: &Expected, found: Outcome) -> bool {
    let named = match compiled.rules.get(&found.rule) {
        None => found.rule == 0 && expected.rules.is_empty(),
        Some(source) => expected
            .rules
            .iter()
            .any(|rule| rule.policy == source.policy && rule.section == source.section),
    };
    named
        && (expected.verdict, expected.reason, expected.until)
            == (found.verdict, found.reason, found.until)
}
