//! The policy directory: what it opens and what it can't, live and over a restart.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
};

use ringfence_tests::{
    Actor, Agent, Options, Sandbox, metrics::Metrics, policy::workload, poll::until, program, scene,
};

use crate::common::{assert_allowed, assert_refused, three_tiers};

/// Where web may not go.
const CLOSED: &str = "127.0.0.1:81";

/// `ringfence status` in compact form.
fn status_command(agent: &Agent) -> Output {
    Command::new(program::product("ringfence"))
        .args(["status", "-o", "compact", "--socket"])
        .arg(agent.socket())
        .output()
        .unwrap()
}

#[track_caller]
fn assert_headline(agent: &Agent, expected: &str) {
    let output = status_command(agent);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.trim_end(), expected);
    assert!(output.status.success(), "{output:?}");
}

/// Gone as after a reboot: no agent, no pins, nothing guards.
#[track_caller]
fn reboot(sandbox: &Sandbox, agent: &mut Agent, web: &Actor) {
    agent.kill();
    fs::remove_dir_all(sandbox.pins()).unwrap();
    until("nothing guards without pins", || {
        web.tcp(CLOSED, &[]).failed("connect", "ECONNREFUSED")
    });
}

#[track_caller]
fn until_refused(agent: &Agent, reason: &str) {
    until("the refusal is shown", || {
        agent.status().policy_error.contains(reason)
    });
}

fn newest_refused(metrics: &Metrics) -> u64 {
    metrics.sum("ringfence_newest_policy_refused", &[])
}

#[test]
fn a_broken_document_at_a_start_leaves_the_last_good_policy_in_force() {
    scene("last-good", |sandbox| {
        let web = sandbox.actor("web");
        let mut agent = Agent::start(sandbox, &three_tiers());
        let _ = assert_refused(&web, CLOSED, &[]);
        assert_headline(&agent, "ENFORCING");

        // With the pins of the agent before, and with none.
        agent.kill();
        let broken = agent.policy_dir().join("broken.toml");
        fs::write(&broken, "[[policy]]\nnaem = \"x\"\n").unwrap();
        agent.restart();
        let _ = assert_refused(&web, CLOSED, &[]);
        reboot(sandbox, &mut agent, &web);
        agent.restart();
        let _ = assert_refused(&web, CLOSED, &[]);
        let status = agent.status();
        assert_eq!(status.workloads, 3);
        assert!(status.policy_error.contains("broken.toml:2"), "{status:?}");
        assert_headline(&agent, "ENFORCING (newest policy refused)");
        assert_eq!(newest_refused(&agent.metrics()), 1);
        agent.assert_counters();

        // Nothing but the refusal changes when the directory is as it was.
        let generation = status.generation;
        fs::remove_file(&broken).unwrap();
        until("the refusal is over", || {
            agent.status().policy_error.is_empty()
        });
        assert_eq!(agent.status().generation, generation);
        assert_eq!(newest_refused(&agent.metrics()), 0);
        assert_headline(&agent, "ENFORCING");
    });
}

#[test]
fn a_start_without_a_good_policy_now_or_before_is_an_error() {
    scene("never-good", |sandbox| {
        let ended = Agent::try_start(sandbox, &Options::default(), "[[policy]]\nnaem = 1\n").err();
        let ended = ended.unwrap_or_else(|| panic!("it started"));
        assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
        assert!(ended.log.contains("policy.toml:2"), "{}", ended.log);
        assert!(!ended.log.contains("controller"), "{}", ended.log);
    });
}

#[test]
fn a_directory_that_is_gone_or_empty_opens_nothing() {
    scene("no-policies", |sandbox| {
        let web = sandbox.actor("web");
        let mut agent = Agent::start(sandbox, &three_tiers());
        let policies = agent.policy_dir();
        let away = policies.with_extension("away");
        let _ = assert_refused(&web, CLOSED, &[]);

        // Live.
        fs::rename(&policies, &away).unwrap();
        until_refused(&agent, "does not exist");
        let _ = assert_refused(&web, CLOSED, &[]);
        fs::create_dir(&policies).unwrap();
        until_refused(&agent, "holds no .toml file");
        let _ = assert_refused(&web, CLOSED, &[]);
        // Over two restarts: the copy on disk is not replaced by an empty one.
        for _ in 0..2 {
            reboot(sandbox, &mut agent, &web);
            agent.restart();
            let _ = assert_refused(&web, CLOSED, &[]);
            assert!(agent.status().policy_error.contains("holds no .toml file"));
            assert_eq!(agent.status().workloads, 3);
        }
        assert_headline(&agent, "ENFORCING (newest policy refused)");
        fs::remove_dir(&policies).unwrap();
        until_refused(&agent, "does not exist");

        // Empty on purpose.
        fs::create_dir(&policies).unwrap();
        fs::write(policies.join("empty.toml"), "").unwrap();
        until("the empty policy is in force", || {
            let status = agent.status();
            status.workloads == 0 && status.policy_error.is_empty()
        });
        let _ = assert_allowed(&web, CLOSED, &[]);
        assert_headline(&agent, "NO POLICY: nothing is restricted");
        fs::remove_file(policies.join("empty.toml")).unwrap();
        fs::remove_dir(&policies).unwrap();
        fs::rename(&away, &policies).unwrap();
        until("the policy is back", || agent.status().workloads == 3);
        let _ = assert_refused(&web, CLOSED, &[]);
    });
}

#[test]
fn a_first_start_without_a_directory_says_that_there_is_no_policy() {
    scene("first-start", |sandbox| {
        let web = sandbox.actor("web");
        let options = Options {
            agent: "policy-dir = \"later.d\"\n".to_owned(),
            ..Options::default()
        };
        let agent = Agent::start_with(sandbox, &options, "");
        let status = agent.status();
        assert_eq!((status.policies, status.restricted), (0, 0));
        assert!(status.policy_error.is_empty(), "{status:?}");
        until("the warning is shown", || {
            let warnings = agent.status().warnings;
            warnings
                .iter()
                .any(|it| it.contains("there is no policy") && it.contains("later.d"))
        });
        assert_headline(&agent, "NO POLICY: nothing is restricted");
        let _ = assert_allowed(&web, CLOSED, &[]);

        let later = agent.policy_dir().with_file_name("later.d");
        fs::create_dir(&later).unwrap();
        fs::write(later.join("policy.toml"), three_tiers()).unwrap();
        until("the policy is in force", || agent.status().workloads == 3);
        let _ = assert_refused(&web, CLOSED, &[]);
        assert_headline(&agent, "ENFORCING");
        let warnings = agent.status().warnings;
        assert!(
            !warnings.iter().any(|it| it.contains("no policy")),
            "{warnings:?}"
        );
    });
}

/// A directory with the policy of [`three_tiers`], web being let through to [`CLOSED`] as well.
fn open_policy(at: &Path) {
    fs::create_dir(at).unwrap();
    let open = three_tiers().replace(
        "to = [{ workload = \"api\" }]\nports = [\"8080/tcp\"]",
        "ports = [\"81/tcp\"]",
    );
    fs::write(at.join("other.toml"), open).unwrap();
}

#[test]
fn a_directory_that_is_replaced_is_taken_in() {
    scene("replaced", |sandbox| {
        let web = sandbox.actor("web");
        let agent = Agent::start(sandbox, &three_tiers());
        let policies = agent.policy_dir();
        let (closed, open) = (
            policies.with_extension("closed"),
            policies.with_extension("open"),
        );
        let _ = assert_refused(&web, CLOSED, &[]);

        open_policy(&open);
        fs::rename(&policies, &closed).unwrap();
        fs::rename(&open, &policies).unwrap();
        until("the new directory is in force", || {
            web.tcp(CLOSED, &[]).failed("connect", "ECONNREFUSED")
        });

        // A symbolic link, and one that takes its place.
        fs::rename(&policies, &open).unwrap();
        symlink(&closed, &policies).unwrap();
        until("the link is followed", || {
            web.tcp(CLOSED, &[]).failed("connect", "EPERM")
        });
        let next = policies.with_extension("next");
        symlink(&open, &next).unwrap();
        fs::rename(&next, &policies).unwrap();
        until("the other link is followed", || {
            web.tcp(CLOSED, &[]).failed("connect", "ECONNREFUSED")
        });
        assert!(agent.status().policy_error.is_empty());
    });
}

#[test]
fn what_is_hardly_meant_is_a_warning_of_the_status() {
    scene("warnings", |sandbox| {
        let _web = sandbox.actor("web");
        let below = workload("below", "cgroup = \"/web/**\"")
            + &workload("left", "cgroup = \"/a*\"")
            + &workload("right", "cgroup = \"/*z\"")
            + &workload("misspelt", "user = \"nobdy\"")
            + "[[policy]]\nname = \"p\"\napplies-to = { app = \"below\" }\n\
               default-deny = [\"egress\"]\n\n[[policy.ingress]]\nports = []\n";
        let agent = Agent::start(sandbox, &below);
        let warned = |what: &str| {
            let warnings = agent.status().warnings;
            warnings.iter().any(|warning| warning.contains(what))
        };
        until("an empty list is told", || warned("empty ports list"));
        until("a workload without a cgroup is told", || {
            warned("\"below\" matches no cgroup")
        });
        assert!(
            !warned("\"left\" matches no cgroup"),
            "no policy selects it"
        );
        let _child = sandbox.cgroup("web/child");
        until("it has one now", || !warned("\"below\" matches no cgroup"));
        assert!(warned(
            "\"misspelt\" asks for user = nobdy, which this host does not have"
        ));
        assert!(!warned("equally closely"));
        let _both = sandbox.cgroup("abz");
        until("a tie that comes later is told", || {
            warned("\"left\" and \"right\" match cgroup /abz equally closely")
        });
    });
}

#[test]
fn a_tie_that_came_up_since_is_no_reason_to_enforce_nothing_at_a_start() {
    scene("tie-start", |sandbox| {
        let web = sandbox.actor("web");
        let text = three_tiers()
            + &workload("left", "cgroup = \"/a*\"")
            + &workload("right", "cgroup = \"/*b\"");
        let mut agent = Agent::start(sandbox, &text);
        let _ = assert_refused(&web, CLOSED, &[]);
        // Both match this one equally closely.
        let both = sandbox.actor("both").in_cgroup(sandbox, "a-b");
        reboot(sandbox, &mut agent, &web);
        agent.restart();
        let _ = assert_refused(&web, CLOSED, &[]);
        let _ = assert_refused(&both, CLOSED, &[]);
        until_refused(&agent, "equally closely");
    });
}
