//! Answers about parties that are not workloads, and about workloads without a table.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ringfence_common::abi::{
    Direction, Reason,
    identity::{AGENT, HOST, PENDING, UNKNOWN, WORLD},
    tuple::TCP,
};
use ringfence_policy::{
    compile::{Compiled, Context, compile, derive_identities, derive_identity},
    explain::{Query, answer},
    model::Document,
    parse::parse,
};
use time::OffsetDateTime;

const POLICY: &str = r#"
[[workload]]
name = "web"
labels = { app = "web" }
match = { uid = 1 }
[[workload]]
name = "db"
match = { uid = 2 }
[[policy]]
name = "web"
applies-to = { app = "web" }
[[policy.egress]]
to = [{ cidr = "10.0.0.0/8", except = ["10.9.0.0/16"] }]
ports = ["443/tcp"]
"#;

fn compiled(deny_unselected: bool) -> Compiled {
    let name = "policy.toml".to_owned();
    let text = POLICY.to_owned();
    let set = parse(&[Document {
        name,
        text: text.into(),
    }])
    .unwrap();
    let context = Context {
        now: OffsetDateTime::UNIX_EPOCH,
        boot_now_ns: 10,
        deny_unselected,
    };
    compile(&set, &derive_identities(&set).unwrap(), &context).unwrap()
}

fn query(local: u32) -> Query {
    Query {
        local,
        direction: Direction::Egress,
        peer: WORLD,
        verified: false,
        peer_address: None,
        protocol: TCP,
        port: 443,
    }
}

fn reason(compiled: &Compiled, query: &Query) -> Reason {
    answer(compiled, query, 10).enforced.reason
}

#[test]
fn parties_that_are_no_workload_have_their_own_answer() {
    let compiled = compiled(true);
    let expected = [
        (HOST, Reason::AllowedHost),
        (AGENT, Reason::AllowedOwnChannel),
        (PENDING, Reason::DeniedPending),
        (UNKNOWN, Reason::DeniedNoIdentity),
        (WORLD, Reason::DeniedNoIdentity),
    ];
    for (local, expected) in expected {
        assert_eq!(reason(&compiled, &query(local)), expected);
    }
}

#[test]
fn no_policy_refuses_the_agents_calls() {
    let call = |direction, verified| Query {
        direction,
        verified,
        peer: AGENT,
        ..query(derive_identity("db"))
    };
    let compiled = compiled(true);
    let own = Reason::AllowedOwnChannel;
    for (direction, verified, is_own) in [
        (Direction::Ingress, true, true),
        (Direction::Listen, true, true),
        (Direction::Ingress, false, false),
        (Direction::Egress, true, false),
    ] {
        let found = reason(&compiled, &call(direction, verified));
        assert_eq!(found == own, is_own, "{direction:?} {verified}: {found:?}");
    }
}

#[test]
fn a_workload_without_a_table_follows_the_setting_but_talks_to_itself() {
    let db = derive_identity("db");
    assert_eq!(
        reason(&compiled(false), &query(db)),
        Reason::AllowedUnselected
    );
    assert_eq!(
        reason(&compiled(true), &query(db)),
        Reason::DeniedUnselected
    );
    let to_itself = Query {
        peer: db,
        ..query(db)
    };
    assert_eq!(reason(&compiled(true), &to_itself), Reason::AllowedSelf);
}

#[test]
fn the_rule_that_decides_is_named_with_its_place() {
    let compiled = compiled(false);
    let v4 = |a, b, c, d| Some([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, a, b, c, d]);
    let web = query(derive_identity("web"));
    let inside = answer(
        &compiled,
        &Query {
            peer_address: v4(10, 1, 2, 3),
            ..web
        },
        10,
    );
    let source = compiled.rules.get(&inside.enforced.rule).unwrap();
    assert_eq!(inside.enforced.reason, Reason::AllowedByRule);
    assert_eq!((source.section.as_str(), source.line), ("egress[0]", 12));

    let excepted = Query {
        peer_address: v4(10, 9, 2, 3),
        ..web
    };
    assert_eq!(reason(&compiled, &excepted), Reason::DeniedDefault);
    let without_address = Query {
        peer_address: None,
        ..web
    };
    assert_eq!(reason(&compiled, &without_address), Reason::DeniedDefault);
}
