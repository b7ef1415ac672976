//! Records, filters and the store, on events as the kernel sends them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic fails the test")]

use std::sync::Arc;

use proptest::prelude::*;
use ringfence_common::{
    abi::{self, Decision, Direction, Owner, Tuple, Verdict, event, socket},
    logic::address::map_v4,
};
use ringfence_policy::{
    compile::{Compiled, Context, compile, derive_identities},
    model::{Document, Identities, PolicySet},
    parse::parse,
};
use ringfence_proto::v1;
use time::OffsetDateTime;
use tokio::sync::{broadcast::error::TryRecvError, watch};

use super::*;
use crate::identity::Inventory;

const POLICY: &str = r#"
[[workload]]
name = "web"
labels = { app = "web" }
match = { systemd-unit = "web.service" }

[[workload]]
name = "db"
labels = { app = "db" }
match = { systemd-unit = "db.service" }

[[policy]]
name = "web"
applies-to = { app = "web" }
[[policy.egress]]
to = [{ workload = "db" }]
ports = ["5432/tcp"]
"#;

fn names() -> (Names, Identities, u32) {
    let (set, compiled, identities) = policy(POLICY);
    let rule = *compiled.rules.keys().next().unwrap();
    let names = Names::default().next(&set, &Arc::new(identities.clone()), &compiled);
    (names, identities, rule)
}

fn policy(text: &str) -> (PolicySet, Compiled, Identities) {
    let document = Document {
        name: "web.toml".to_owned(),
        text: text.into(),
    };
    let set = parse(&[document]).unwrap();
    let identities = derive_identities(&set).unwrap();
    let context = Context {
        now: OffsetDateTime::UNIX_EPOCH,
        boot_now_ns: 1,
        deny_unselected: false,
    };
    let compiled = compile(&set, &identities, &context).unwrap();
    (set, compiled, identities)
}

#[test]
fn names_are_kept_with_their_workloads_and_change_with_them() {
    let (set, compiled, identities) = policy(POLICY);
    let (web, identities) = (*identities.get("web").unwrap(), Arc::new(identities));
    let names = Names::default().next(&set, &identities, &compiled);
    let (_, without_rules, _) = policy(POLICY.split("[[policy]]").next().unwrap());
    let rule = *compiled.rules.keys().next().unwrap();
    let again = names.next(&set, &identities, &without_rules);
    assert!(Arc::ptr_eq(&again.party(web), &names.party(web)));
    assert_eq!(names.rule(rule).unwrap().policy, "web");
    assert_eq!(again.rule(rule).unwrap().policy, "");
    let (other, compiled, _) = policy(&POLICY.replacen("app = \"web\"", "app = \"shop\"", 1));
    let after = again.next(&other, &identities, &compiled);
    assert_eq!(after.party(web).labels.get("app").unwrap(), "shop");
    // The same workloads under other numbers.
    let moved = Arc::new(Identities::from([
        ("web".to_owned(), 300),
        ("db".to_owned(), 301),
    ]));
    let moved = after.next(&other, &moved, &compiled);
    assert_eq!(moved.party(300).name, "web");
    assert_eq!(moved.party(web).name, format!("unknown({web})"));
}

fn processes() -> ProcessBook {
    let (_sender, cgroups) = watch::channel(Inventory::new([], [(9, "/web.service", &[][..])]));
    ProcessBook::new(cgroups)
}

fn sample(kind: u8, direction: Direction) -> abi::Event {
    let (names, identities, rule) = names();
    drop(names);
    let mut comm = [0; 16];
    comm.iter_mut()
        .zip(b"curl")
        .for_each(|(to, from)| *to = *from);
    abi::Event {
        time_ns: 5_000_000_000,
        opened_ns: 2_000_000_000,
        cookie: 77,
        tx_bytes: 100,
        rx_bytes: 2000,
        tuple: Tuple {
            local: map_v4([10, 0, 0, 1]),
            remote: map_v4([10, 0, 0, 2]),
            local_port: 40_000,
            remote_port: 5432,
            protocol: 6,
            ..Tuple::default()
        },
        owner: Owner {
            identity: *identities.get("web").unwrap(),
            cgroup: 9,
            tgid: 4_000_000_000,
            uid: 33,
            comm,
            ..Owner::default()
        },
        decision: Decision {
            rule,
            peer: *identities.get("db").unwrap(),
            generation: 3,
            verdict: Verdict::Allow as u8,
            reason: 1,
            draft_verdict: Verdict::Deny as u8,
            draft_reason: 9,
            direction: direction as u8,
            flags: socket::PEER_VERIFIED,
            ..Decision::default()
        },
        rtt_us: 12,
        kind,
        ..abi::Event::default()
    }
}

fn recorded(event: &abi::Event) -> Record {
    record(event, &names().0, &mut processes(), 1_000_000_000).unwrap()
}

#[test]
fn egress_record_has_the_local_socket_as_source() {
    let flow = recorded(&sample(event::CLOSE, Direction::Egress)).to_proto(4);
    let (source, destination) = (flow.source.unwrap(), flow.destination.unwrap());
    assert_eq!((source.workload.as_str(), source.port), ("web", 40_000));
    assert_eq!(source.labels.get("app").map(String::as_str), Some("web"));
    assert_eq!(
        (destination.address.as_str(), destination.port),
        ("10.0.0.2", 5432)
    );
    assert_eq!((flow.forward_bytes, flow.reverse_bytes), (100, 2000));
    assert_eq!(flow.duration_ns, 3_000_000_000);
    assert_eq!(flow.time.unwrap().seconds, 6);
    assert_eq!(flow.sequence, 4);
    assert!(flow.peer_verified && !flow.revoked);
    let process = flow.process.unwrap();
    assert_eq!(
        (process.command.as_str(), process.cgroup.as_str()),
        ("curl", "/web.service")
    );
    let rule = flow.enforced.unwrap().rule.unwrap();
    assert_eq!(
        (rule.policy.as_str(), rule.rule.as_str()),
        ("web", "egress[0]")
    );
    assert!(rule.location.starts_with("web.toml:"), "{}", rule.location);
    let draft = flow.draft.unwrap();
    assert_eq!((draft.reason.as_str(), draft.rule), ("default-deny", None));
}

#[test]
fn ingress_record_has_the_peer_as_source() {
    let flow = recorded(&sample(event::OPEN, Direction::Ingress)).to_proto(1);
    let (source, destination) = (flow.source.unwrap(), flow.destination.unwrap());
    assert_eq!(
        (source.workload.as_str(), source.address.as_str()),
        ("db", "10.0.0.2")
    );
    assert_eq!(
        (destination.workload.as_str(), destination.port),
        ("web", 40_000)
    );
    assert_eq!((flow.forward_bytes, flow.reverse_bytes), (2000, 100));
    assert_eq!(flow.duration_ns, 0);
}

#[test]
fn listen_record_has_a_destination_only() {
    let mut event = sample(event::DENY, Direction::Listen);
    event.tuple.remote = [0; 16];
    event.tuple.remote_port = 0;
    let flow = recorded(&event).to_proto(1);
    assert_eq!(flow.source, None);
    assert_eq!(flow.destination.unwrap().port, 40_000);
}

#[test]
fn addresses_that_no_hook_knew_are_empty() {
    let event = abi::Event {
        tuple: Tuple::default(),
        ..sample(event::DENY, Direction::Egress)
    };
    let flow = recorded(&event).to_proto(1);
    assert_eq!(flow.destination.unwrap().address, "");
}

#[test]
fn icmp_shows_identifier_and_type_where_readers_expect_them() {
    for direction in [Direction::Egress, Direction::Ingress] {
        let mut event = sample(event::OPEN, direction);
        event.tuple.protocol = abi::tuple::ICMP;
        event.tuple.local_port = 555;
        event.tuple.remote_port = 8;
        let flow = recorded(&event).to_proto(1);
        assert_eq!(flow.source.unwrap().port, 555);
        assert_eq!(flow.destination.unwrap().port, 8);
    }
}

#[test]
fn reserved_and_unknown_numbers_are_named() {
    let (names, ..) = names();
    let found: Vec<String> = (0..9)
        .map(|identity| names.party(identity).name.clone())
        .collect();
    assert_eq!(
        found,
        [
            "unknown",
            "host",
            "world",
            "remote-host",
            "kernel",
            "pending",
            "controller",
            "agent",
            "unknown(8)"
        ]
    );
    assert_eq!(names.rule(0), None);
    assert_eq!(names.rule(123_456).unwrap().policy, "");
}

#[test]
fn events_about_executables_are_no_records() {
    let (names, ..) = names();
    for kind in [
        0,
        event::PENDING,
        event::EXEC,
        event::RELEASE,
        event::ABORT,
        255,
    ] {
        let event = sample(kind, Direction::Egress);
        assert!(record(&event, &names, &mut processes(), 0).is_none());
    }
}

proptest! {
    #[test]
    fn any_numbers_make_a_record(
        kind in 1u8..=3, direction: u8, verdict: u8, reason: u8, protocol: u8, flags: u8,
        peer: u32, rule: u32, time_ns: u64, offset: i64, comm: [u8; 16], address: [u8; 16],
    ) {
        let base = sample(kind, Direction::Egress);
        let event = abi::Event {
            time_ns,
            tuple: Tuple { local: address, protocol, ..base.tuple },
            owner: Owner { comm, tgid: u32::MAX, ..base.owner },
            decision: Decision { direction, verdict, reason, draft_reason: reason, flags, peer, rule, ..base.decision },
            ..base
        };
        let record = record(&event, &Names::default(), &mut processes(), offset).unwrap();
        let flow = record.to_proto(1);
        let decision = flow.enforced.unwrap();
        prop_assert!(!decision.reason.is_empty());
        if abi::Reason::from_number(reason).is_none() {
            prop_assert_eq!(decision.reason, format!("unknown({reason})"));
        }
        let command = flow.process.unwrap().command;
        prop_assert!(!command.contains(char::is_control));
    }
}

fn matching(filter: v1::FlowFilter, record: &Record) -> bool {
    Filter::try_from(filter).unwrap().matches(record)
}

#[test]
fn filters_match_either_end() {
    let egress = recorded(&sample(event::OPEN, Direction::Egress));
    let text = |value: &str| vec![value.to_owned()];
    for (workload, expected) in [("web", true), ("db", true), ("api", false)] {
        let filter = v1::FlowFilter {
            workload: text(workload),
            ..v1::FlowFilter::default()
        };
        assert_eq!(matching(filter, &egress), expected, "{workload}");
    }
    for (port, expected) in [(40_000, true), (5432, true), (22, false)] {
        let filter = v1::FlowFilter {
            port: vec![port],
            ..v1::FlowFilter::default()
        };
        assert_eq!(matching(filter, &egress), expected, "{port}");
    }
    for (address, expected) in [
        ("10.0.0.1", true),
        ("10.0.0.2/31", true),
        ("10.1.0.0/16", false),
        ("::/0", false),
    ] {
        let filter = v1::FlowFilter {
            address: text(address),
            ..v1::FlowFilter::default()
        };
        assert_eq!(matching(filter, &egress), expected, "{address}");
    }
}

#[test]
fn all_fields_of_a_filter_must_match_and_any_value_of_a_field() {
    let egress = recorded(&sample(event::OPEN, Direction::Egress));
    let all = v1::FlowFilter {
        workload: vec!["web".to_owned()],
        port: vec![1, 5432],
        verdict: vec![1],
        draft_verdict: vec![1, 2],
        direction: vec![1],
        protocol: vec![6],
        address: vec!["10.0.0.0/8".to_owned()],
        event: vec![1],
    };
    assert!(matching(v1::FlowFilter::default(), &egress));
    assert!(matching(all.clone(), &egress));
    let not: [fn(&mut v1::FlowFilter); 8] = [
        |f| f.workload = vec!["x".to_owned()],
        |f| f.port = vec![1],
        |f| f.verdict = vec![2],
        |f| f.draft_verdict = vec![1],
        |f| f.direction = vec![2],
        |f| f.protocol = vec![17],
        |f| f.address = vec!["192.168.0.0/16".to_owned()],
        |f| f.event = vec![3],
    ];
    for (number, change) in not.into_iter().enumerate() {
        let mut filter = all.clone();
        change(&mut filter);
        assert!(!matching(filter, &egress), "field {number}");
    }
}

#[test]
fn bad_filters_name_the_field() {
    let bad = [
        (
            v1::FlowFilter {
                port: vec![65_536],
                ..v1::FlowFilter::default()
            },
            "port",
        ),
        (
            v1::FlowFilter {
                verdict: vec![0],
                ..v1::FlowFilter::default()
            },
            "verdict",
        ),
        (
            v1::FlowFilter {
                draft_verdict: vec![3],
                ..v1::FlowFilter::default()
            },
            "draft_verdict",
        ),
        (
            v1::FlowFilter {
                direction: vec![9],
                ..v1::FlowFilter::default()
            },
            "direction",
        ),
        (
            v1::FlowFilter {
                protocol: vec![256],
                ..v1::FlowFilter::default()
            },
            "protocol",
        ),
        (
            v1::FlowFilter {
                address: vec!["db".to_owned()],
                ..v1::FlowFilter::default()
            },
            "address",
        ),
        (
            v1::FlowFilter {
                event: vec![4],
                ..v1::FlowFilter::default()
            },
            "event",
        ),
    ];
    for (filter, field) in bad {
        let error = Filter::try_from(filter).unwrap_err();
        assert!(error.to_string().contains(&format!("`{field}`")), "{error}");
    }
    let long = v1::FlowFilter {
        port: vec![1; 300],
        ..v1::FlowFilter::default()
    };
    assert_eq!(
        Filter::try_from(long).unwrap_err(),
        FilterError::TooLong(300)
    );
}

fn numbered(cookie: u64) -> Record {
    recorded(&abi::Event {
        cookie,
        ..sample(event::DENY, Direction::Egress)
    })
}

#[tokio::test]
async fn the_log_keeps_the_last_records_in_order() {
    let (handle, store) = open(3);
    let _task = tokio::spawn(store.run());
    for cookie in 1..=5 {
        handle.push(numbered(cookie));
    }
    let reading = handle.read().await.unwrap();
    let kept: Vec<(u64, u64)> = reading
        .past
        .iter()
        .map(|numbered| (numbered.sequence, numbered.record.event.cookie))
        .collect();
    assert_eq!(kept, [(3, 3), (4, 4), (5, 5)]);
    assert_eq!(handle.counters().evicted(), 2);
    assert_eq!(handle.counters().flows(Event::Deny, Verdict::Allow), 5);
}

#[tokio::test]
async fn past_and_future_join_without_gap_or_duplicate() {
    let (handle, store) = open(1 << 16);
    let _task = tokio::spawn(store.run());
    let record = numbered(1);
    let pusher = handle.clone();
    let pushing = tokio::spawn(async move {
        for _ in 0..20_000 {
            pusher.push(record.clone());
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..20 {
        let mut reading = handle.read().await.unwrap();
        let last = reading.past.last().map_or(0, |numbered| numbered.sequence);
        assert_eq!(last, u64::try_from(reading.past.len()).unwrap());
        let next = reading.next.recv().await.unwrap();
        assert_eq!(next.sequence, last + 1);
    }
    pushing.await.unwrap();
}

#[tokio::test]
async fn a_slow_reader_is_told_its_loss_and_the_newest_stay() {
    let (handle, store) = open(10);
    let _task = tokio::spawn(store.run());
    let mut next = handle.read().await.unwrap().next;
    let record = numbered(1);
    for _ in 0..10_000 {
        handle.push(record.clone());
    }
    let _all_stored = handle.read().await.unwrap();
    let lost = match next.try_recv() {
        Err(TryRecvError::Lagged(lost)) => lost,
        other => panic!("expected a loss, got {other:?}"),
    };
    assert_eq!(next.try_recv().unwrap().sequence, lost + 1);
}

#[tokio::test]
async fn a_full_queue_loses_counts_and_leaves_a_gap() {
    let (handle, store) = open(1);
    let record = numbered(1);
    for _ in 0..65_536 + 7 {
        handle.push(record.clone());
    }
    assert_eq!(handle.counters().queue_full(), 7);
    let _task = tokio::spawn(store.run());
    let reading = handle.read().await.unwrap();
    assert_eq!(reading.past.last().unwrap().sequence, 65_536 + 7);
}

#[tokio::test]
async fn live_flows_follow_open_and_close() {
    let (handle, store) = open(10);
    let _task = tokio::spawn(store.run());
    let open_event = sample(event::OPEN, Direction::Egress);
    handle.push(recorded(&open_event));
    handle.push(recorded(&abi::Event {
        cookie: 78,
        ..open_event
    }));
    let live = handle.live().await.unwrap();
    assert_eq!(live.len(), 2);
    handle.push(recorded(&sample(event::DENY, Direction::Egress)));
    handle.push(recorded(&sample(event::CLOSE, Direction::Egress)));
    let live = handle.live().await.unwrap();
    let [only] = live.as_slice() else {
        panic!("{live:?}");
    };
    assert_eq!((only.cookie, only.decision.generation), (78, 3));
    assert_eq!(handle.counters().live(), 1);
}

#[tokio::test]
async fn live_flows_include_those_of_records_that_were_not_read_yet() {
    let (handle, store) = open(10);
    let _task = tokio::spawn(store.run());
    let mut requests = handle.requests();
    let unread = recorded(&sample(event::OPEN, Direction::Egress));
    let reader = handle.clone();
    let reading = tokio::spawn(async move {
        let done = requests.recv().await.unwrap();
        reader.push(unread);
        done.send(()).unwrap();
    });
    assert_eq!(handle.live().await.unwrap().len(), 1);
    reading.await.unwrap();
    // The reader is gone, and what it has read stays.
    assert_eq!(handle.live().await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_ended_store_is_an_error() {
    let (handle, store) = open(1);
    drop(store);
    assert_eq!(handle.live().await, Err(StoreGone));
    handle.push(numbered(1));
}
