//! What a change of policy replaces.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ringfence_policy::{
    compile::{Compiled, Context, compile, derive_identities, derive_identity},
    model::Document,
    parse::parse,
    plan::{Plan, plan},
};
use time::OffsetDateTime;

/// `count` workloads, each with a policy; those in `closed` allow nothing.
fn compiled(count: usize, closed: &[usize]) -> Compiled {
    use std::fmt::Write;

    let mut text = String::new();
    for number in 0..count {
        let ports = if closed.contains(&number) {
            ""
        } else {
            "\"443/tcp\""
        };
        write!(
            text,
            "[[workload]]\nname = \"w{number}\"\nlabels = {{ n = \"{number}\" }}\nmatch = {{ uid = {number} }}\n[[policy]]\nname = \"p{number}\"\napplies-to = {{ n = \"{number}\" }}\n[[policy.egress]]\nports = [{ports}]\n"
        )
        .unwrap();
    }
    let name = "policy.toml".to_owned();
    let set = parse(&[Document {
        name,
        text: text.into(),
    }])
    .unwrap();
    let context = Context {
        now: OffsetDateTime::UNIX_EPOCH,
        boot_now_ns: 0,
        deny_unselected: false,
    };
    compile(&set, &derive_identities(&set).unwrap(), &context).unwrap()
}

#[test]
fn the_same_policy_needs_nothing() {
    assert!(plan(&compiled(3, &[]), &compiled(3, &[])).is_empty());
}

#[test]
fn only_tables_that_differ_are_replaced() {
    let found = plan(&compiled(200, &[]), &compiled(200, &[77]));
    let replace = vec![derive_identity("w77")];
    assert_eq!(
        found,
        Plan {
            replace,
            remove: Vec::new()
        }
    );
}

#[test]
fn new_tables_are_written_and_old_ones_removed() {
    let (small, large) = (compiled(1, &[]), compiled(2, &[]));
    let one = vec![derive_identity("w1")];
    let added = plan(&small, &large);
    assert_eq!((added.replace, added.remove.len()), (one.clone(), 0));
    let removed = plan(&large, &small);
    assert_eq!((removed.replace.len(), removed.remove), (0, one));
    assert_eq!(plan(&Compiled::default(), &large).replace.len(), 2);
}
