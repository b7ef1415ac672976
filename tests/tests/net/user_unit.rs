//! Units of a user's own service manager: the user who is named has them, and nobody else.

use ringfence_tests::{
    Agent,
    policy::{policy, workload},
    scene,
};

use crate::common::{assert_allowed, assert_refused};

const ALLOWED: &str = "127.0.0.1:81";
const OTHER: &str = "127.0.0.1:82";
const ALICE: u32 = 70_001;
const BOB: u32 = 70_002;

#[test]
fn a_users_unit_is_the_users_and_nobody_elses() {
    scene("user-unit", |sandbox| {
        let of = |uid: u32, unit: &str| {
            let path = format!("user.slice/user-{uid}.slice/user@{uid}.service/app.slice/{unit}");
            sandbox.actor("app").in_cgroup(sandbox, &path)
        };
        let backup = of(ALICE, "backup.service");
        let text = workload(
            "backup",
            &format!("systemd-user-unit = \"backup.service\", uid = {ALICE}"),
        ) + &workload("alice", &format!("uid = {ALICE}"))
            + &workload(
                "jobs",
                &format!("systemd-user-unit = \"job@.service\", uid = {BOB}"),
            )
            + &policy("backup", "", &[("egress", "ports = [\"81/tcp\"]")])
            + &policy("alice", "default-deny = [\"egress\"]", &[])
            + &policy("jobs", "", &[("egress", "ports = [\"81/tcp\"]")]);
        // Without Ringfence each of these calls passes.
        for actor in [backup.as_user(ALICE), of(BOB, "job@1.service").as_user(BOB)] {
            let _ = assert_allowed(&actor, OTHER, &[]);
        }
        let agent = Agent::start(sandbox, &text);
        let mut expected = Vec::new();
        for (actor, workload, allowed) in [
            (backup.as_user(ALICE), "backup", true),
            (
                of(ALICE, "x.service/backup.service").as_user(ALICE),
                "alice",
                false,
            ),
            (of(ALICE, "x.service").as_user(ALICE), "alice", false),
            (of(BOB, "backup.service").as_user(ALICE), "alice", false),
            (of(BOB, "job@2.service").as_user(BOB), "jobs", true),
        ] {
            if allowed {
                let _ = assert_allowed(&actor, ALLOWED, &[]);
            } else {
                let by = actor.by(assert_refused(&actor, ALLOWED, &[]).pid);
                expected.push(format!(
                    "deny egress tcp {workload} -> host {ALLOWED} deny default-deny {by}"
                ));
            }
            let by = actor.by(assert_refused(&actor, OTHER, &[]).pid);
            expected.push(format!(
                "deny egress tcp {workload} -> host {OTHER} deny default-deny {by}"
            ));
        }
        // In the same unit, but not the user whose it is: nobody's policy applies.
        for (actor, address) in [
            (backup.as_user(BOB), OTHER),
            (of(BOB, "backup.service").as_user(BOB), OTHER),
            (of(ALICE, "job@1.service").as_user(BOB), OTHER),
        ] {
            let _ = assert_allowed(&actor, address, &[]);
        }
        agent.assert_log_of(&expected, |flow| {
            ringfence_tests::flows::line(flow).starts_with("deny ")
        });
        agent.assert_counters();
    });
}
