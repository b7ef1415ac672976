//! A change that is not in force yet, judged against what is live.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ringfence_common::{
    abi::{Decision, FailsafeEntry, socket::PEER_VERIFIED, tuple::TCP},
    logic::address::map_v4,
};
use ringfence_policy::{
    compile::{Context, compile, derive_identities},
    model::Document,
    parse::parse,
};
use time::OffsetDateTime;

use super::*;
use crate::endpoints::Endpoint;

const POLICY: &str = r#"
[[workload]]
name = "web"
labels = { app = "web" }
match = { cgroup = "/web" }
[[workload]]
name = "db"
labels = { app = "db" }
match = { cgroup = "/db" }
[[policy]]
name = "web"
applies-to = { app = "web" }
[[policy.egress]]
to = [{ workload = "db" }]
ports = ["5432/tcp"]
[[policy]]
name = "db"
applies-to = { app = "db" }
default-deny = ["ingress"]
[[policy.listen]]
ports = ["5432/tcp"]
"#;

fn proposal() -> Proposal {
    let document = Document {
        name: "/p.toml".to_owned(),
        text: POLICY.into(),
    };
    let set = parse(&[document]).unwrap();
    let identities = derive_identities(&set).unwrap();
    let context = Context {
        now: OffsetDateTime::UNIX_EPOCH,
        boot_now_ns: 1,
        deny_unselected: false,
    };
    Proposal {
        compiled: compile(&set, &identities, &context).unwrap().into(),
        identities: identities.into(),
        foreseen: Foreseen::default(),
        warnings: Vec::new(),
        sizes: [2, 2, 2],
    }
}

/// Both sides of a flow from web to db, as each socket sees it.
fn flow(proposal: &Proposal, port: u16) -> [Live; 2] {
    let (web, db) = (
        *proposal.identities.get("web").unwrap(),
        *proposal.identities.get("db").unwrap(),
    );
    let tuple = Tuple {
        local: map_v4([127, 0, 0, 1]),
        remote: map_v4([127, 0, 0, 2]),
        local_port: 40_000,
        remote_port: port,
        protocol: TCP,
        ..Tuple::default()
    };
    let live = |identity, peer, tuple, direction: Direction| Live {
        cookie: 1,
        tuple,
        owner: Owner {
            identity,
            netns: 5,
            tgid: 77,
            ..Owner::default()
        },
        decision: Decision {
            peer,
            direction: direction as u8,
            flags: PEER_VERIFIED,
            ..Decision::default()
        },
        opened_ns: 1,
    };
    [
        live(web, db, tuple, Direction::Egress),
        live(db, web, other_end(&tuple), Direction::Ingress),
    ]
}

fn spared(all: bool, failsafe: Vec<FailsafeEntry>) -> Spared {
    Spared { all, failsafe }
}

fn decided(decision: &ringfence_proto::v1::Decision) -> String {
    let rule = decision.rule.as_ref();
    format!(
        "{} {}",
        decision.reason,
        rule.map_or("", |rule| rule.location.as_str())
    )
}

#[test]
fn each_end_of_a_flow_is_judged_by_its_own_direction() {
    let proposal = proposal();
    let live = [flow(&proposal, 5432), flow(&proposal, 80)].concat();
    let found = preview(
        proposal,
        &live,
        &Arc::default(),
        &spared(false, Vec::new()),
        10,
    );
    let lines: Vec<_> = found
        .cut
        .iter()
        .map(|cut| {
            let tuple = cut.flow.tuple;
            let port = tuple.local_port.min(tuple.remote_port);
            format!(
                "{} {} {port} {}",
                cut.workload,
                cut.peer,
                decided(&cut.decision)
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            // The server takes nobody; the client may call 5432 only.
            "db web 80 default-deny ",
            "db web 5432 default-deny ",
            "web db 80 default-deny ",
        ]
    );
    assert_eq!(found.live, 4);
}

#[test]
fn the_failsafe_list_and_draft_mode_cut_nothing() {
    let entry = FailsafeEntry {
        address: map_v4([127, 0, 0, 0]),
        prefix: 104,
        first_port: 5432,
        last_port: 5432,
        protocol: TCP,
        ..FailsafeEntry::default()
    };
    let one = proposal();
    let live = flow(&one, 5432);
    let found = preview(one, &live, &Arc::default(), &spared(false, vec![entry]), 10);
    assert!(found.cut.is_empty(), "{:?}", found.cut);

    let two = proposal();
    let live = flow(&two, 80);
    let found = preview(two, &live, &Arc::default(), &spared(true, Vec::new()), 10);
    assert!(found.cut.is_empty(), "{:?}", found.cut);
    assert!(found.notes.iter().any(|note| note.contains("draft mode")));
}

#[test]
fn a_listener_is_refused_where_no_rule_lets_it_listen() {
    let proposal = proposal();
    let endpoint = |workload: &str, port| Endpoint {
        identity: *proposal.identities.get(workload).unwrap(),
        workload: workload.into(),
        namespace: 1,
        protocol: TCP,
        port,
        address: "0.0.0.0".parse().unwrap(),
        dual_stack: false,
        device: 0,
    };
    let listeners = Arc::new(Endpoints {
        list: [
            endpoint("db", 5432),
            endpoint("db", 81),
            endpoint("web", 82),
        ]
        .into(),
        omitted: 0,
        error: None,
    });
    let found = preview(proposal, &[], &listeners, &spared(false, Vec::new()), 10);
    let ports: Vec<_> = found
        .refused
        .iter()
        .map(|refused| refused.endpoint.port)
        .collect();
    assert_eq!(ports, [81]);
}

#[test]
fn a_peer_of_a_workload_that_goes_is_the_host() {
    let proposal = proposal();
    assert_eq!(proposal.peer(300), HOST);
    let db = *proposal.identities.get("db").unwrap();
    assert_eq!(proposal.peer(db), db);
    assert_eq!(proposal.peer(UNKNOWN), UNKNOWN);
}
