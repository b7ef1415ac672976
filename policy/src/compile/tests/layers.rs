//! Entries, headers, drafts and times.

use std::sync::Arc;

use ringfence_common::abi::{
    Direction,
    identity::WORLD,
    rule::{
        ALLOW_SELF, DENY_EGRESS, DENY_INGRESS, DENY_LISTEN, FLAG_VERIFIED, PEER_ANY, SELECTED,
        TIER_ANY_PROTOCOL, TIER_PEER_ANY, TIER_PEER_IDENTITY, TIER_PEER_VERIFIED,
    },
};
use time::Duration;

use super::{
    BOOT_NS, DB, POLICY, WEB, compile, compiled, context, identities, key, set, table, times,
};
use crate::model::PolicySet;

const END: u64 = u64::MAX;

#[test]
fn every_workload_has_a_header_and_only_selected_ones_have_more() {
    let flags = |table: &crate::compile::Table| (table.header.enforced, table.header.draft);
    for table in compiled("").tables.values() {
        assert_eq!(flags(table), (ALLOW_SELF, ALLOW_SELF));
        assert_eq!((table.header.tiers, table.entries.len()), ([0; 3], 0));
    }
    let tables = compiled(&format!("{POLICY}[[policy.egress]]\n")).tables;
    assert_eq!(tables.len(), identities().len());
    for (identity, table) in &tables {
        assert_eq!(!table.entries.is_empty(), *identity == WEB);
    }

    let mut without_self = set("");
    let mut workloads = without_self.workloads.to_vec();
    Arc::make_mut(&mut workloads[0]).allow_self = false;
    without_self.workloads = workloads.into();
    let compiled = compile(&without_self, &identities(), &context()).unwrap();
    assert_eq!(flags(&compiled.tables[&DB]), (0, 0));
    assert_eq!(compiled.names[&WEB], "web");
}

#[test]
fn a_rule_without_peers_and_ports_is_one_entry() {
    let table = table("[[policy.egress]]\n");
    let (found, entry) = table.entries.first_key_value().unwrap();
    assert_eq!(*found, key(Direction::Egress, PEER_ANY, 0, 0, 0));
    assert_eq!(times(entry), [(0, END); 2]);
    assert_eq!(table.entries.len(), 1);
    assert_eq!(
        table.header.tiers,
        [TIER_PEER_ANY | TIER_ANY_PROTOCOL, 0, 0]
    );
    assert_eq!(table.header.enforced, SELECTED | ALLOW_SELF | DENY_EGRESS);
}

#[test]
fn each_peer_and_each_port_prefix_is_an_entry() {
    let table = table(
        "[[policy.ingress]]\nfrom = [{ workload = \"db\", verified = true }, { labels = { app = \"db\" } }, { entity = \"world\" }]\nports = [\"80-95/tcp\", \"icmp/8\"]\n",
    );
    let mut expected = Vec::new();
    for (peer, flags) in [(WORLD, 0), (DB, 0), (DB, FLAG_VERIFIED)] {
        for (protocol, port, prefix) in [(6, 80, 12), (1, 8, 16)] {
            let mut key = key(Direction::Ingress, peer, protocol, port, prefix);
            key.flags = flags;
            expected.push(key);
        }
    }
    expected.sort();
    assert_eq!(table.entries.keys().copied().collect::<Vec<_>>(), expected);
    let tiers = TIER_PEER_IDENTITY | TIER_PEER_VERIFIED | 1 << 12 | 1 << 16;
    assert_eq!(table.header.tiers, [0, tiers, 0]);
}

#[test]
fn a_deny_rule_restricts_its_direction_too() {
    let table = table("[[policy.deny-listen]]\nports = [\"22/tcp\"]\n");
    assert_eq!(table.header.enforced, SELECTED | ALLOW_SELF | DENY_LISTEN);
    let entry = table.entries[&key(Direction::Listen, PEER_ANY, 6, 22, 16)];
    assert_eq!(times(&entry), [(END, 0); 2]);
}

#[test]
fn default_deny_needs_no_rule() {
    let table = table("default-deny = [\"ingress\", \"listen\"]\n");
    assert_eq!(
        table.header.enforced,
        SELECTED | ALLOW_SELF | DENY_INGRESS | DENY_LISTEN
    );
    assert!(table.entries.is_empty());
}

#[test]
fn empty_lists_make_no_entry_but_restrict() {
    for lines in [
        "[[policy.egress]]\nto = []\n",
        "[[policy.egress]]\nports = []\n",
    ] {
        let table = table(lines);
        assert!(table.entries.is_empty());
        assert_eq!(table.header.enforced, SELECTED | ALLOW_SELF | DENY_EGRESS);
    }
}

#[test]
fn drafts_stand_in_the_draft_layer_only() {
    let draft = "[[policy]]\nname = \"d\"\nmode = \"draft\"\napplies-to = { app = \"web\" }\n[[policy.deny-egress]]\n[[policy.listen]]\n";
    let compiled = compiled(&format!("{POLICY}[[policy.egress]]\n{draft}"));
    let table = &compiled.tables[&WEB];
    let egress = table.entries[&key(Direction::Egress, PEER_ANY, 0, 0, 0)];
    assert_eq!(times(&egress), [(0, END), (END, END)]);
    assert_ne!(egress.draft.deny_rule, egress.draft.allow_rule);
    assert_eq!(egress.enforced.deny_rule, 0);
    assert!(compiled.rules[&egress.draft.deny_rule].draft);
    assert!(!compiled.rules[&egress.draft.allow_rule].draft);
    let listen = table.entries[&key(Direction::Listen, PEER_ANY, 0, 0, 0)];
    assert_eq!(times(&listen), [(0, 0), (0, END)]);
    assert_eq!(table.header.enforced, SELECTED | ALLOW_SELF | DENY_EGRESS);
    assert_eq!(
        table.header.draft,
        SELECTED | ALLOW_SELF | DENY_EGRESS | DENY_LISTEN
    );
}

#[test]
fn a_draft_alone_does_not_select() {
    let table = table("mode = \"draft\"\n[[policy.egress]]\n");
    assert_eq!(table.header.enforced, ALLOW_SELF);
    assert_eq!(table.header.draft, ALLOW_SELF | SELECTED | DENY_EGRESS);
}

#[test]
fn not_after_becomes_kernel_time() {
    let until = |not_after: &str| {
        let table = table(&format!("not-after = {not_after}\n[[policy.egress]]\n"));
        assert_eq!(table.header.enforced, SELECTED | ALLOW_SELF | DENY_EGRESS);
        times(&table.entries[&key(Direction::Egress, PEER_ANY, 0, 0, 0)])[0].1
    };
    assert_eq!(until("2026-01-01T00:00:01.5Z"), BOOT_NS + 1_500_000_000);
    assert_eq!(until("2026-01-01T01:00:01+01:00"), BOOT_NS + 1_000_000_000);
    assert_eq!(
        until("2026-01-01T00:00:00Z"),
        1,
        "passed at this very moment"
    );
    assert_eq!(until("2020-01-01T00:00:00Z"), 1);
    assert_eq!(
        until("9999-12-31T23:59:59Z"),
        END - 1,
        "far away is not without end"
    );
}

#[test]
fn a_policy_that_has_not_begun_selects_without_rules() {
    let lines = "not-before = 2026-01-01T00:00:01Z\n[[policy.egress]]\n";
    let all = compiled(&format!(
        "{POLICY}{lines}[[policy]]\nname = \"later\"\napplies-to = {{ app = \"db\" }}\nnot-before = 2026-02-01T00:00:00Z\n"
    ));
    let table = &all.tables[&WEB];
    assert!(table.entries.is_empty());
    assert_eq!(table.header.enforced, SELECTED | ALLOW_SELF | DENY_EGRESS);
    assert_eq!(all.next_change, Some(context().now + Duration::SECOND));
    assert_eq!(all.rules.len(), 1, "its rule keeps its number");

    let mut then = context();
    then.now += Duration::SECOND;
    let begun = compile(&set(&format!("{POLICY}{lines}")), &identities(), &then).unwrap();
    assert_eq!(
        (begun.tables[&WEB].entries.len(), begun.next_change),
        (1, None)
    );
}

#[test]
fn order_of_policies_does_not_matter() {
    let policies = "[[policy]]\nname = \"q\"\napplies-to = { app = \"web\" }\n[[policy.egress]]\nto = [{ cidr = \"10.0.0.0/8\" }]\n[[policy.deny-egress]]\nto = [{ cidr = \"10.1.0.0/16\" }, { cidr = \"0.0.0.0/0\" }]\n";
    let one = set(&format!(
        "{POLICY}[[policy.egress]]\nto = [{{ cidr = \"10.1.0.0/16\" }}]\n{policies}"
    ));
    let other = PolicySet {
        workloads: one.workloads.iter().rev().cloned().collect(),
        policies: one.policies.iter().rev().cloned().collect(),
    };
    let compile = |set| compile(set, &identities(), &context()).unwrap();
    let (one, other) = (compile(&one), compile(&other));
    assert_eq!(one.rules, other.rules);
    assert_eq!(one.tables[&WEB].header, other.tables[&WEB].header);
    assert_eq!(one.tables[&WEB], other.tables[&WEB]);
}
