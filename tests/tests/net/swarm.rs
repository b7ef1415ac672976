//! Users who run more new executables than can be judged.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
};

use ringfence_tests::{
    Agent,
    policy::{policy, workload},
    scene,
};

use crate::common::assert_allowed;

const NOBODY: u32 = 65_534;
/// Fresh programs of somebody else that are called meanwhile.
const CALLS: usize = 12;

#[test]
fn new_executables_of_one_user_keep_nobody_elses_waiting() {
    scene("swarm", |sandbox| {
        let open = |path: &std::path::Path| {
            fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        };
        open(sandbox.files());
        let directory = sandbox.files().join("swarm");
        fs::create_dir(&directory).unwrap();
        chown(&directory, Some(NOBODY), Some(NOBODY)).unwrap();
        let good = sandbox.actor("good");
        let text = workload("good", &format!("exe = \"{}\"", good.program().display()))
            + &workload("user", "cgroup = \"/user\"")
            + &policy("good", "", &[("egress", "ports = [\"81/tcp\"]")])
            + &policy("user", "", &[("egress", "ports = [\"81/tcp\"]")]);
        let agent = Agent::start(sandbox, &text);
        let runner = sandbox.actor("runner").in_cgroup(sandbox, "user");
        let place = directory.display().to_string();
        let mut swarm = runner
            .as_user(NOBODY)
            .start(&["swarm", &place, "--threads", "14"]);
        let _begun = swarm.line().expect_ok("a swarm");
        for call in 0..CALLS {
            // Another file each time.
            let fresh = sandbox.actor(&format!("fresh{call}"));
            if call % 2 == 0 {
                let _ = assert_allowed(&fresh, "127.0.0.1:81", &[]);
            } else {
                fs::rename(fresh.program(), good.program()).unwrap();
                let _ = assert_allowed(&good, "127.0.0.1:81", &[]);
            }
        }
        swarm.go_on();
        let outcome = swarm.last().expect_ok("starts");
        assert!(outcome.sent > 1_000, "{outcome:?}");
        drop(agent);
    });
}
