//! Users make more cgroups and addresses than the agent keeps: nobody else is concerned, and nothing is open.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    process::Command,
};

use ringfence_tests::{
    Agent, Running,
    policy::{policy, workload, workloads},
    poll::until,
    program, scene,
};

/// Somebody without privileges.
const USER: u32 = 54_321;

#[track_caller]
fn assert_allowed(outcome: &ringfence_tests::Outcome, when: &str) {
    // Nobody listens.
    assert_eq!(
        outcome.error.as_deref(),
        Some("ECONNREFUSED"),
        "{when}: {outcome:?}"
    );
}

#[test]
fn a_user_with_too_many_cgroups_opens_nothing_and_shuts_nobody_out() {
    const MORE: usize = 8_300;
    scene("cgroups", |sandbox| {
        let to = [("egress", "ports = [\"81/tcp\"]")];
        let text = workload("alice", "cgroup = \"/alice/**\"")
            + &workloads(&["late"])
            + &policy("alice", "default-deny = [\"egress\"]", &[])
            + &policy("late", "", &to);
        let handed = sandbox.cgroup("alice");
        let agent = Agent::start(sandbox, &text);
        // It is hers only after the agent has seen it, and has something in it by then.
        fs::create_dir(handed.join("c00000")).unwrap();
        chown(&handed, Some(USER), None).unwrap();
        for n in 1..MORE {
            fs::create_dir(handed.join(format!("c{n:05}"))).unwrap();
        }
        let warned = || {
            let warnings = agent.status().warnings;
            warnings
                .iter()
                .any(|it| it.contains("too many cgroups below /alice"))
        };
        until("it is warned of", warned);
        until("it is counted", || {
            let metrics = agent.metrics();
            metrics.sum("ringfence_left_out_total", &[("what", "cgroup")]) > 0
        });

        // Who is followed, and who is not.
        let alice = sandbox.actor("alice");
        for n in [0, MORE - 1] {
            let refused = alice
                .at(&handed.join(format!("c{n:05}")))
                .tcp("127.0.0.1:81", &["--timeout-ms", "1000"]);
            assert!(!refused.ok(), "{n}: {refused:?}");
            assert_ne!(
                refused.error.as_deref(),
                Some("ECONNREFUSED"),
                "{n}: {refused:?}"
            );
        }
        let late = sandbox.actor("late");
        assert_allowed(&late.tcp("127.0.0.1:81", &[]), "by its policy");
        let _refused = late
            .tcp("127.0.0.1:82", &[])
            .expect_refused("connect", "by its policy");

        for n in 0..MORE {
            fs::remove_dir(handed.join(format!("c{n:05}"))).unwrap();
        }
        until("it is over", || !warned());
    });
}

#[test]
fn a_chain_of_cgroups_opens_nothing_and_holds_no_change_up() {
    scene("chain", |sandbox| {
        let to = |port: u16| format!("ports = [\"{port}/tcp\"]");
        let text = |port: u16| {
            workload("alice", "cgroup = \"/alice/**\"")
                + &workload("held", "cgroup = \"/held/**/x\"")
                + &workloads(&["late"])
                + &policy("alice", "default-deny = [\"egress\"]", &[])
                + &policy("held", "default-deny = [\"egress\"]", &[])
                + &policy("late", "", &[("egress", &to(port))])
        };
        let late = sandbox.actor("late");
        let agent = Agent::start(sandbox, &text(81));
        let levels = 1_900;
        let bottoms = ["alice", "held"].map(|name| {
            let top = sandbox.cgroup(name);
            chown(&top, Some(USER), None).unwrap();
            (
                name,
                sandbox.cgroup(&format!("{name}{}", "/u".repeat(levels))),
            )
        });
        let warned = |place: &str| {
            let warnings = agent.status().warnings;
            warnings.iter().any(|it| it.contains(place))
        };
        until("it is warned of", || {
            warned("too many cgroups below /alice") || warned("too many cgroups below /held")
        });
        for (name, bottom) in &bottoms {
            let actor = sandbox.actor(name).at(bottom);
            let refused = actor.tcp("127.0.0.1:81", &["--timeout-ms", "1000"]);
            assert_ne!(
                refused.error.as_deref(),
                Some("ECONNREFUSED"),
                "{name}: {refused:?}"
            );
            assert!(!refused.ok(), "{name}: {refused:?}");
            let frame = ["frame", "lo", "61", "--bypass"];
            let _refused = actor.run(&frame).expect_refused("option", name);
        }
        assert_allowed(&late.tcp("127.0.0.1:81", &[]), "before the change");
        agent.set_policy(&text(82));
        assert_allowed(&late.tcp("127.0.0.1:82", &[]), "after the change");
        let _refused = late
            .tcp("127.0.0.1:81", &[])
            .expect_refused("connect", "after the change");
    });
}

#[test]
fn a_user_with_too_many_addresses_takes_no_room_of_the_host() {
    scene("addresses", |sandbox| {
        let from_web = "from = [{ workload = \"web\" }]\nports = [\"81/tcp\"]";
        let text = workloads(&["web", "db"]) + &policy("db", "", &[("ingress", from_web)]);
        let agent = Agent::start(sandbox, &text);
        let lines = (0..4_300)
            .map(|n| format!("address add 10.{}.{}.1/32 dev lo", 100 + n / 256, n % 256))
            .collect::<Vec<_>>()
            .join("\n");
        let batch = sandbox.files().join("addresses");
        fs::write(&batch, lines).unwrap();
        fs::set_permissions(sandbox.files(), fs::Permissions::from_mode(0o755)).unwrap();
        let script = "ip -batch \"$0\" && echo '{\"pid\":0,\"step\":\"ready\",\"error\":null,\"local\":null,\"peer\":null,\
             \"sent\":0,\"received\":0,\"took_ms\":0}' && exec cat >/dev/null";
        let mut command = Command::new(program::own("ringfence-traffic"));
        let _ = command
            .args([
                "--uid",
                &USER.to_string(),
                "run",
                "unshare",
                "--user",
                "--map-root-user",
                "--net",
            ])
            .args(["sh", "-c", script])
            .arg(&batch);
        let mut user = Running::spawn(&mut command);
        let _ready = user.line().expect_ok("a namespace with many addresses");
        let user_is_named =
            format!("too many local addresses in network namespaces of user {USER}");
        let warned = || {
            let warnings = agent.status().warnings;
            warnings.iter().any(|it| it.contains(&user_is_named))
        };
        until("it is warned of", warned);
        until("they are counted", || {
            let metrics = agent.metrics();
            metrics.sum("ringfence_left_out_total", &[("what", "address")]) > 0
        });

        // What is new on the host is known all the same: db knows web by its socket.
        sandbox
            .namespace()
            .run("ip address add 10.97.0.1/32 dev lo");
        let (web, db) = (sandbox.actor("web"), sandbox.actor("db"));
        let _server = db.serve(&["tcp", "10.97.0.1:81"]);
        until("web passes", || {
            web.tcp("10.97.0.1:81", &["--timeout-ms", "1000"]).ok()
        });
        user.kill();
        until("it is over", || !warned());
    });
}
