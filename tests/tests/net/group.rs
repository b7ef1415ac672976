//! Processes of one program and one cgroup that are told apart by their groups.

use nix::unistd::{Gid, Group};
use ringfence_tests::{
    Actor, Agent,
    policy::{policy, workload, workloads},
    poll::until,
    scene,
};

use crate::common::{assert_allowed, assert_refused};

const AT_DB: &str = "127.0.0.1:5432";
const OTHER: &str = "127.0.0.1:5433";
/// Groups that nobody needs to have made: the kernel knows numbers only.
const STAFF: u32 = 70_001;
const OPS: u32 = 70_002;
const ALONE: u32 = 70_003;

/// Members of `staff` may reach the database's port, those of `ops` the other one.
///
/// The program is named somewhere, so that it is judged before it calls.
fn two_groups(app: &Actor) -> String {
    let named = format!(
        "cgroup = \"/nowhere\", exe = \"{}\"",
        app.program().display()
    );
    workload("nowhere", &named)
        + &workload("staff", &format!("cgroup = \"/app\", gid = {STAFF}"))
        + &workload("ops", &format!("cgroup = \"/app\", gid = {OPS}"))
        + &workload("rest", "cgroup = \"/app\"")
        + &policy("staff", "", &[("egress", "ports = [\"5432/tcp\"]")])
        + &policy("ops", "", &[("egress", "ports = [\"5433/tcp\"]")])
        + &policy("rest", "default-deny = [\"egress\"]", &[])
}

/// Both calls with what the flow log must say of them: who called, and which call was allowed.
fn calls(actor: &Actor, workload: &str, allowed: Option<&str>) -> Vec<String> {
    let mut expected = Vec::new();
    for address in [AT_DB, OTHER] {
        let flow = format!("egress tcp {workload} -> host {address}");
        if allowed == Some(address) {
            let by = actor.by(assert_allowed(actor, address, &[]).pid);
            expected.push(format!(
                "close {flow} allow rule-allow {workload}/egress[0] unfinished 0/0B {by}"
            ));
        } else {
            let by = actor.by(assert_refused(actor, address, &[]).pid);
            let reason = if workload == "unknown" {
                "no-identity-deny"
            } else {
                "default-deny"
            };
            expected.push(format!("deny {flow} deny {reason} {by}"));
        }
    }
    expected
}

#[test]
fn a_process_is_of_the_workload_of_its_real_or_supplementary_group() {
    scene("group", |sandbox| {
        let app = sandbox.actor("app");
        let many: Vec<u32> = (1..=150).map(|number| number * 500).collect();
        let with = |gid| [&many[..], &[gid]].concat();
        let cases = [
            (app.in_groups(STAFF, &[]), "staff", Some(AT_DB)),
            (app.in_groups(ALONE, &[STAFF]), "staff", Some(AT_DB)),
            (app.in_groups(OPS, &[ALONE]), "ops", Some(OTHER)),
            (app.in_groups(ALONE, &[]), "rest", None),
            (app.in_groups(ALONE, &[STAFF - 1, OPS + 1]), "rest", None),
            (app.in_groups(ALONE, &many), "rest", None),
            (app.in_groups(ALONE, &with(STAFF)), "staff", Some(AT_DB)),
            (app.in_groups(STAFF, &with(STAFF)), "staff", Some(AT_DB)),
            (app.in_groups(ALONE, &with(OPS)), "ops", Some(OTHER)),
        ];
        for (actor, ..) in &cases {
            let _ = assert_allowed(actor, AT_DB, &[]);
        }
        let agent = Agent::start(sandbox, &two_groups(&app));
        let mut expected = Vec::new();
        for (actor, workload, allowed) in &cases {
            expected.extend(calls(actor, workload, *allowed));
        }
        agent.assert_log_of(&expected, |flow| !line_is_open(flow));
        agent.assert_counters();
    });
}

fn line_is_open(flow: &ringfence_proto::v1::Flow) -> bool {
    ringfence_tests::flows::line(flow).starts_with("open ")
}

#[test]
fn a_group_is_found_wherever_it_stands_among_many() {
    scene("group-search", |sandbox| {
        let app = sandbox.actor("app");
        let agent = Agent::start(sandbox, &two_groups(&app));
        // The list is sorted by the kernel: below and above the one that is looked for.
        for (below, above) in [
            (0, 0),
            (0, 1),
            (1, 0),
            (0, 255),
            (255, 0),
            (128, 127),
            (3, 1000),
        ] {
            let list = |member: Option<u32>| -> Vec<u32> {
                let below = (0..below).map(|number| STAFF - 1 - number);
                let above = (0..above).map(|number| 80_000 + number);
                below.chain(above).chain(member).collect()
            };
            let member = app.in_groups(ALONE, &list(Some(STAFF)));
            let _ = assert_allowed(&member, AT_DB, &[]);
            let other = app.in_groups(ALONE, &list(None));
            let _ = assert_refused(&other, AT_DB, &[]);
        }
        agent.assert_counters();
    });
}

#[test]
fn two_groups_are_more_specific_than_one_and_a_user_than_a_group() {
    scene("group-specific", |sandbox| {
        let app = sandbox.actor("app");
        let both = app.in_groups(STAFF, &[OPS]);
        let mut agent = Agent::start(sandbox, &two_groups(&app));
        let shown = agent.status().warnings.join("\n");
        for part in ["\"staff\"", "\"ops\"", "in group 70001 in group 70002"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        // Equal: nothing decides, nothing is allowed.
        let tied = calls(&both, "unknown", None);
        agent.assert_log_of(&tied, |flow| !line_is_open(flow));

        let third = Group::from_gid(Gid::from_raw(1)).unwrap().unwrap();
        let named = format!(
            "cgroup = \"/app\", group = \"{}\", gid = {STAFF}",
            third.name
        );
        let decided = two_groups(&app)
            + &workload("named", &named)
            + &workload("root", &format!("cgroup = \"/app\", uid = 0, gid = {OPS}"));
        agent.set_policy(&decided);
        let named = app.in_groups(1, &[STAFF]);
        for (actor, workload) in [(&named, "named"), (&both, "root")] {
            let by = actor.by(assert_allowed(actor, OTHER, &[]).pid);
            until("a record", || {
                let log = agent.client().flows(Vec::new()).unwrap();
                log.iter().any(|flow| {
                    let line = ringfence_tests::flows::line(flow);
                    line.contains(&format!("egress tcp {workload} -> host")) && line.ends_with(&by)
                })
            });
        }
        agent.assert_counters();
        agent.kill();
    });
}

#[test]
fn groups_are_looked_at_when_a_socket_connects_not_when_it_is_made() {
    scene("group-change", |sandbox| {
        let app = sandbox.actor("app").in_groups(ALONE, &[STAFF]);
        let agent = Agent::start(sandbox, &two_groups(&app));
        let (ops, staff) = (format!("1,{OPS}"), format!("1,{STAFF}"));
        let mut caller = app.start(&["regroup", AT_DB, "", &ops, "1,2,3", &staff]);
        for round in 0..3 {
            let outcome = caller.line();
            assert!(outcome.failed("connect", "EPERM"), "{round}: {outcome:?}");
        }
        let last = caller.last();
        assert!(last.failed("connect", "ECONNREFUSED"), "{last:?}");
        let of = |flow: &str, decision: &str| {
            format!("{flow} -> host {AT_DB} {decision} {}", app.by(last.pid))
        };
        agent.assert_log_of(
            &[
                of("deny egress tcp rest", "deny default-deny"),
                of("deny egress tcp ops", "deny default-deny"),
                of("deny egress tcp rest", "deny default-deny"),
                of(
                    "close egress tcp staff",
                    "allow rule-allow staff/egress[0] unfinished 0/0B",
                ),
            ],
            |flow| !line_is_open(flow),
        );
        agent.assert_counters();
    });
}

#[test]
fn sockets_are_adopted_by_the_groups_of_their_process() {
    scene("group-adopt", |sandbox| {
        let app = sandbox.actor("app");
        let db = sandbox.actor("db");
        let _server = db.serve(&["tcp", AT_DB, "--echo"]);
        let mut allowed = app.in_groups(ALONE, &[5, STAFF, 90_000]).hold(AT_DB);
        let forbidden = app.in_groups(OPS, &[5]).hold(AT_DB);
        let text = two_groups(&app) + &workloads(&["db"]);
        let mut agent = Agent::start(sandbox, &text);
        let cut = forbidden.last();
        assert!(!cut.ok(), "{cut:?}");
        assert!(allowed.is_alive(), "an allowed flow was cut");
        agent.assert_counters();
        agent.kill();
        // Without an agent the kernel goes on asking.
        let (member, other) = (app.in_groups(STAFF, &[]), app.in_groups(ALONE, &[OPS]));
        let _ = member.tcp(AT_DB, &[]).expect_ok("a member");
        let _ = assert_refused(&other, AT_DB, &[]);
        agent.restart();
        let _ = member
            .tcp(AT_DB, &[])
            .expect_ok("a member after the restart");
        let _ = assert_refused(&other, AT_DB, &[]);
        assert!(allowed.is_alive(), "cut by the restart");
        // Other groups are asked for: those of the process are read again.
        agent.set_policy(&(text + &workload("third", "cgroup = \"/app\", gid = 4, uid = 4")));
        let mut late = member.hold(AT_DB);
        assert!(
            allowed.is_alive() && late.is_alive(),
            "cut by a policy that changes nothing for it"
        );
    });
}

#[test]
fn a_cgroup_that_comes_up_meanwhile_waits_for_the_groups_of_its_process() {
    scene("group-newborn", |sandbox| {
        let app = sandbox.actor("app");
        let wild = two_groups(&app).replace("\"/app\"", "\"/app*\"");
        let agent = Agent::start(sandbox, &wild);
        for round in 0..10 {
            let fresh = app.in_cgroup(sandbox, &format!("app{round}"));
            let _ = assert_allowed(&fresh.in_groups(ALONE, &[STAFF]), AT_DB, &[]);
            let fresh = app.in_cgroup(sandbox, &format!("app{round}x"));
            let refused = fresh.in_groups(ALONE, &[OPS]).tcp(AT_DB, &[]);
            assert!(
                !refused.ok() && refused.error.as_deref() != Some("ECONNREFUSED"),
                "{refused:?}"
            );
        }
        agent.assert_counters();
    });
}

#[test]
fn too_many_groups_in_one_cgroup_are_refused_by_name() {
    scene("group-many", |sandbox| {
        let crowd = |count: u32| -> String {
            let one =
                |number| workload(&format!("w{number}"), &format!("gid = {}", STAFF + number));
            (0..count).map(one).collect()
        };
        let agent = Agent::start(sandbox, &crowd(8));
        let refused = agent.refuse_policy(&crowd(9));
        for part in [
            "\"w0\"",
            "\"w8\"",
            "9 different groups",
            "at most 8",
            "use fewer groups",
        ] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
    });
}
