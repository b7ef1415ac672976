//! `ringfence policy apply`: changes on trial, rollback, and dry runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread::sleep,
    time::Duration,
};

use ringfence_tests::{
    Actor, Agent, Running, Sandbox, agent::Options, poll::until, program, scene,
};
use serde_json::Value;

use crate::common::{assert_allowed, assert_refused, three_policies, three_tiers};

const AT_API: &str = "127.0.0.1:8080";
const AT_DB: &str = "127.0.0.1:5432";
const JOURNAL: &str = "policy-change.journal";

fn ringfence(agent: &Agent, arguments: &[&str]) -> Output {
    let mut command = Command::new(program::product("ringfence"));
    let _ = command.args(arguments).arg("--socket").arg(agent.socket());
    command.output().unwrap()
}

#[track_caller]
fn ok(agent: &Agent, arguments: &[&str]) -> String {
    let output = ringfence(agent, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn refused(agent: &Agent, arguments: &[&str]) -> String {
    let output = ringfence(agent, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A document beside the policy directory, called as the one in it.
fn document(sandbox: &Sandbox, name: &str, text: &str) -> PathBuf {
    let dir = sandbox.files().join(name);
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("policy.toml");
    fs::write(&path, text).unwrap();
    path
}

const TO_API: &str = "to = [{ workload = \"api\" }]\nports = [\"8080/tcp\"]";

/// web may call port 8080 of anyone.
fn base() -> String {
    let text = three_tiers();
    assert!(text.contains(TO_API));
    text.replace(TO_API, "ports = [\"8080/tcp\"]")
}

/// Without the rule by which web calls port 8080.
fn without_web() -> String {
    three_tiers().replace(TO_API, "to = []")
}

fn text_of(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn held(agent: &Agent) -> String {
    fs::read_to_string(agent.policy_dir().join("policy.toml")).unwrap()
}

fn state(agent: &Agent) -> PathBuf {
    agent.policy_dir().parent().unwrap().join("state")
}

fn gauge(agent: &Agent) -> u64 {
    agent.metrics().sum("ringfence_policy_change_pending", &[])
}

#[test]
fn a_change_on_trial_rolls_back_by_itself() {
    scene("trial", |sandbox| {
        let web = sandbox.actor("web");
        let agent = Agent::start(sandbox, &base());
        let _ = assert_allowed(&web, AT_API, &[]);
        let path = document(sandbox, "new", &without_web());
        let said = ok(
            &agent,
            &["policy", "apply", text_of(&path), "--confirm", "4s"],
        );
        assert!(
            said.contains("rolled back in") && said.contains("policy confirm"),
            "{said}"
        );
        let _ = assert_refused(&web, AT_API, &[]);
        // The former policy is what the directory holds.
        assert_eq!(held(&agent), base());

        let pending = agent.status().pending_change.unwrap();
        assert_eq!(pending.changed, ["policy.toml"]);
        assert!((1..=4).contains(&pending.seconds_left), "{pending:?}");
        assert_eq!(gauge(&agent), 1);
        let compact = ok(&agent, &["status", "-o", "compact"]);
        assert!(
            compact.contains("change on trial: rolled back in"),
            "{compact}"
        );
        let json: Value = serde_json::from_str(&ok(&agent, &["status", "-o", "json"])).unwrap();
        let headline = json.get("headline").and_then(Value::as_str).unwrap();
        assert!(headline.contains("on trial"), "{headline}");
        assert_eq!(
            json.pointer("/pending_change/changed/0").unwrap(),
            "policy.toml"
        );
        let list = ringfence(&agent, &["policy", "list"]);
        let list = String::from_utf8(list.stderr).unwrap();
        assert!(list.contains("on trial: policy.toml"), "{list}");

        // A second one has to wait, and is told for what.
        let second = refused(&agent, &["policy", "apply", text_of(&path)]);
        assert!(second.contains("waits to be confirmed"), "{second}");
        assert!(second.contains("policy rollback"), "{second}");

        until("the change is rolled back", || {
            agent.status().pending_change.is_none()
        });
        let _ = assert_allowed(&web, AT_API, &[]);
        assert_eq!(gauge(&agent), 0);
        assert_eq!(
            agent
                .metrics()
                .sum("ringfence_policy_rolled_back_total", &[]),
            1
        );
        let warnings = agent.status().warnings;
        assert!(
            warnings.iter().any(|it| it.contains("nobody confirmed")),
            "{warnings:?}"
        );
        assert!(!state(&agent).join(JOURNAL).exists());
        let late = refused(&agent, &["policy", "confirm"]);
        assert!(late.contains("no change waits"), "{late}");
        agent.assert_counters();
    });
}

#[test]
fn a_confirmed_change_stays_and_is_in_the_directory() {
    scene("confirm", |sandbox| {
        let web = sandbox.actor("web");
        let mut agent = Agent::start(sandbox, &base());
        let path = document(sandbox, "new", &without_web());
        let _said = ok(
            &agent,
            &["policy", "apply", text_of(&path), "--confirm", "3s"],
        );
        let said = ok(&agent, &["policy", "confirm"]);
        assert!(said.contains("Confirmed: policy.toml"), "{said}");
        assert_eq!(held(&agent), without_web());
        assert!(agent.status().pending_change.is_none());
        // Longer than the trial would have lasted.
        sleep(Duration::from_secs(4));
        let _ = assert_refused(&web, AT_API, &[]);
        agent.kill();
        agent.restart();
        let _ = assert_refused(&web, AT_API, &[]);
        let said = ok(&agent, &["policy", "apply", text_of(&path)]);
        assert!(said.contains("Unchanged"), "{said}");

        // For good at once, and a document more; then only that one.
        let more = sandbox.files().join("more.toml");
        fs::write(
            &more,
            "[[workload]]\nname = \"more\"\nmatch = { cgroup = \"/more\" }\n",
        )
        .unwrap();
        let _said = ok(&agent, &["policy", "apply", text_of(&more)]);
        assert_eq!(agent.status().workloads, 4);
        assert!(agent.policy_dir().join("more.toml").exists());
        let _said = ok(&agent, &["policy", "apply", "--prune", text_of(&more)]);
        assert_eq!(agent.status().workloads, 1);
        assert!(!agent.policy_dir().join("policy.toml").exists());
        let _ = assert_allowed(&web, AT_API, &[]);
    });
}

#[test]
fn a_rollback_by_command_and_a_refused_change_leave_the_former_policy() {
    scene("rollback", |sandbox| {
        let web = sandbox.actor("web");
        let agent = Agent::start(sandbox, &base());
        let path = document(sandbox, "new", &without_web());
        let nothing = refused(&agent, &["policy", "rollback"]);
        assert!(nothing.contains("no change waits"), "{nothing}");
        let _said = ok(
            &agent,
            &["policy", "apply", text_of(&path), "--confirm", "1h"],
        );
        let _ = assert_refused(&web, AT_API, &[]);
        // What is written meanwhile counts when the trial ends.
        agent.write_policy(&(base() + "# by hand\n"));
        agent.reload();
        until("the waiting directory is told", || {
            let warnings = agent.status().warnings;
            warnings
                .iter()
                .any(|it| it.contains("changed while a change is on trial"))
        });
        let _ = assert_refused(&web, AT_API, &[]);
        let overtaken = refused(&agent, &["policy", "confirm"]);
        assert!(overtaken.contains("policy.toml was changed"), "{overtaken}");
        let said = ok(&agent, &["policy", "rollback"]);
        assert!(said.contains("Rolled back: policy.toml"), "{said}");
        let _ = assert_allowed(&web, AT_API, &[]);
        assert!(held(&agent).ends_with("# by hand\n"));

        let generation = agent.status().generation;
        let bad = document(sandbox, "bad", "[[policy]]\nnaem = \"x\"\n");
        for arguments in [&["--confirm", "1h"][..], &[], &["--dry-run"]] {
            let arguments = [&["policy", "apply", text_of(&bad)], arguments].concat();
            let said = refused(&agent, &arguments);
            assert!(
                said.contains("policy.toml:2") && said.contains("naem"),
                "{said}"
            );
        }
        let status = agent.status();
        assert_eq!(status.generation, generation);
        assert!(status.pending_change.is_none() && status.policy_error.is_empty());
        assert!(!state(&agent).join(JOURNAL).exists());
        agent.assert_counters();
    });
}

#[test]
fn a_trial_outlives_a_killed_agent_and_ends_in_time() {
    scene("trial-killed", |sandbox| {
        let web = sandbox.actor("web");
        let mut agent = Agent::start(sandbox, &base());
        let path = document(sandbox, "new", &without_web());
        let _said = ok(
            &agent,
            &["policy", "apply", text_of(&path), "--confirm", "1h"],
        );
        agent.kill();
        agent.restart();
        let pending = agent.status().pending_change.unwrap();
        assert!((3400..=3600).contains(&pending.seconds_left), "{pending:?}");
        let _ = assert_refused(&web, AT_API, &[]);
        let _said = ok(&agent, &["policy", "confirm"]);
        assert_eq!(held(&agent), without_web());

        // Its time comes while no agent runs.
        let path = document(sandbox, "back", &base());
        let _said = ok(
            &agent,
            &["policy", "apply", text_of(&path), "--confirm", "4s"],
        );
        let _ = assert_allowed(&web, AT_API, &[]);
        agent.kill();
        sleep(Duration::from_secs(5));
        agent.restart();
        let _ = assert_refused(&web, AT_API, &[]);
        let status = agent.status();
        assert!(status.pending_change.is_none());
        assert!(
            status.warnings.iter().any(|it| it.contains("no agent ran")),
            "{status:?}"
        );
        assert_eq!(held(&agent), without_web());

        // And while one runs that was started anew.
        let _said = ok(
            &agent,
            &["policy", "apply", text_of(&path), "--confirm", "15s"],
        );
        agent.kill();
        agent.restart();
        let _ = assert_allowed(&web, AT_API, &[]);
        until("the change is rolled back", || {
            agent.status().pending_change.is_none()
        });
        let _ = assert_refused(&web, AT_API, &[]);
    });
}

#[test]
fn a_confirmed_change_that_was_not_written_is_written_by_the_next_start() {
    scene("trial-replay", |sandbox| {
        let web = sandbox.actor("web");
        let mut agent = Agent::start(sandbox, &base());
        let path = document(sandbox, "new", &without_web());
        let _said = ok(
            &agent,
            &["policy", "apply", text_of(&path), "--confirm", "1h"],
        );
        let journal = state(&agent).join(JOURNAL);
        let kept = fs::read_to_string(&journal).unwrap();
        agent.kill();
        // As it is left by an agent that dies between the decision and the files.
        let body = kept.splitn(3, '\n').last().unwrap();
        let body = body.replacen("\"confirmed\":false", "\"confirmed\":true", 1);
        let plain = sandbox.files().join("body");
        fs::write(&plain, &body).unwrap();
        let header = kept.lines().next().unwrap();
        let sum = crate::common::sha256(&plain);
        fs::write(&journal, format!("{header}\n{sum}\n{body}")).unwrap();
        agent.restart();
        assert_eq!(held(&agent), without_web());
        assert!(!journal.exists());
        assert!(agent.status().pending_change.is_none());
        let _ = assert_refused(&web, AT_API, &[]);
    });
}

#[test]
fn a_trial_stands_beside_the_controllers_policy() {
    scene("trial-controller", |sandbox| {
        let web = sandbox.actor("web");
        let extra = |port: u16| {
            format!(
                "[[policy]]\nname = \"extra\"\napplies-to = {{ app = \"web\" }}\n[[policy.egress]]\nports = [\"{port}/tcp\"]\n"
            )
        };
        let controller = ringfence_tests::Controller::start(sandbox, &three_tiers());
        let agent = Agent::start_with(sandbox, &controller.options(), "");
        until("the controller's policy is in force", || {
            agent.status().controller_generation == 1
        });
        let _ = assert_refused(&web, "127.0.0.1:81", &[]);
        let path = document(sandbox, "new", &extra(81));
        let _said = ok(
            &agent,
            &["policy", "apply", text_of(&path), "--confirm", "1h"],
        );
        let _ = assert_allowed(&web, "127.0.0.1:81", &[]);
        // A revocation by the controller does not wait for the trial.
        controller.set_policy(&without_web());
        until("the controller's change is in force", || {
            agent.status().controller_generation == 2
        });
        let _ = assert_refused(&web, AT_API, &[]);
        let _ = assert_allowed(&web, "127.0.0.1:81", &[]);
        assert!(agent.status().pending_change.is_some());
        let _said = ok(&agent, &["policy", "rollback"]);
        let _ = assert_refused(&web, "127.0.0.1:81", &[]);
        assert_eq!(agent.status().controller_generation, 2);
        let _ = assert_refused(&web, AT_API, &[]);
    });
}

/// A server, and a stream to it.
fn stream(from: &Actor, to: &Actor, address: &str) -> (Running, Running) {
    let server = to.serve(&["tcp", address, "--echo"]);
    let stream = from.hold(address);
    (server, stream)
}

#[test]
fn a_dry_run_names_what_the_change_then_cuts_and_nothing_else() {
    scene("dry-run", |sandbox| {
        let [web, api, db] = ["web", "api", "db"].map(|name| sandbox.actor(name));
        let listen = "[[policy]]\nname = \"db-listen\"\napplies-to = { app = \"db\" }\nmode = \"draft\"\n[[policy.listen]]\nports = [\"1/tcp\"]\n";
        let before = three_tiers() + listen;
        let agent = Agent::start_with(sandbox, &Options::default(), &before);
        let (_api_server, mut to_api) = stream(&web, &api, AT_API);
        let (_db_server, to_db) = stream(&api, &db, AT_DB);
        until("both flows are known from both ends", || {
            agent.status().live_flows == 4
        });
        let generation = agent.status().generation;

        let harmless = document(sandbox, "harmless", &(before.clone() + "# note\n"));
        let said = ok(
            &agent,
            &["policy", "apply", "--dry-run", text_of(&harmless)],
        );
        assert!(said.contains("0 of 4 live flows would be cut"), "{said}");

        let after = three_tiers().replace(&three_policies("5432/tcp"), &three_policies("1/tcp"))
            + &listen.replace("mode = \"draft\"\n", "");
        assert_ne!(after, before);
        let path = document(sandbox, "new", &after);
        let output = ringfence(
            &agent,
            &["policy", "apply", "--dry-run", "-o", "json", text_of(&path)],
        );
        assert_eq!(output.status.code(), Some(5), "{output:?}");
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let cut = said
            .pointer("/preview/cut_flows")
            .unwrap()
            .as_array()
            .unwrap();
        let field = |flow: &Value, name: &str| flow.pointer(name).cloned().unwrap_or_default();
        let told: Vec<_> = cut
            .iter()
            .map(|flow| {
                (
                    field(flow, "/workload"),
                    field(flow, "/direction"),
                    field(flow, "/peer"),
                    field(flow, "/decision/reason"),
                )
            })
            .collect();
        let row = |words: [&str; 4]| {
            let [a, b, c, d] = words.map(Value::from);
            (a, b, c, d)
        };
        assert_eq!(
            told,
            [
                row(["api", "egress", "db", "default-deny"]),
                row(["db", "ingress", "api", "default-deny"]),
            ]
        );
        let pid = field(cut.first().unwrap(), "/pid");
        assert_eq!(pid, to_db.pid(), "{said}");
        let listeners = said.pointer("/preview/refused_listeners").unwrap();
        assert_eq!(listeners.as_array().unwrap().len(), 1, "{said}");
        assert_eq!(listeners.pointer("/0/port").unwrap(), 5432, "{said}");

        // Nothing has changed.
        assert_eq!(agent.status().generation, generation);
        assert_eq!(held(&agent), before);
        assert!(to_api.is_alive());
        assert!(agent.log().iter().all(|flow| !flow.revoked));

        // A rule that denies is named with its place.
        let denying = before.clone()
            + "[[policy]]\nname = \"stop\"\napplies-to = { app = \"api\" }\n[[policy.deny-egress]]\nports = [\"5432/tcp\"]\n";
        let denying = document(sandbox, "denying", &denying);
        let output = ringfence(&agent, &["policy", "apply", "--dry-run", text_of(&denying)]);
        assert_eq!(output.status.code(), Some(5), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("stop/deny-egress[0]"), "{text}");
        assert!(text.contains("policy.d/policy.toml:"), "{text}");
        assert!(text.contains("1 of 4 live flows would be cut"), "{text}");

        let _said = ok(&agent, &["policy", "apply", text_of(&path)]);
        let end = to_db.last();
        assert!(
            !end.ok() && end.error.as_deref() != Some("timeout"),
            "{end:?}"
        );
        assert!(to_api.is_alive(), "cut, and the dry run did not say so");
        let revoked: Vec<_> = agent
            .log()
            .into_iter()
            .filter(|flow| flow.revoked)
            .collect();
        let to_db = |flow: &ringfence_proto::v1::Flow| {
            flow.destination
                .as_ref()
                .is_some_and(|end| end.port == 5432)
        };
        assert!(
            !revoked.is_empty() && revoked.iter().all(to_db),
            "{revoked:#?}"
        );
        agent.assert_counters();
    });
}

#[test]
fn a_dry_run_knows_who_processes_would_be() {
    scene("dry-run-moves", |sandbox| {
        let [web, api] = ["web", "api"].map(|name| sandbox.actor(name));
        let agent = Agent::start(sandbox, &three_tiers());
        let (_server, mut to_api) = stream(&web, &api, AT_API);
        until("the flow is known from both ends", || {
            agent.status().live_flows == 2
        });
        // The caller becomes someone whom no rule names: by its executable, which the agent has not looked at yet.
        let other = three_tiers().replace(
            "match = { cgroup = \"/web\" }",
            &format!(
                "match = {{ cgroup = \"/web\", exe = \"{}\" }}",
                web.program().display()
            ),
        );
        assert_ne!(other, three_tiers());
        let same = document(sandbox, "same", &other);
        let said = ok(&agent, &["policy", "apply", "--dry-run", text_of(&same)]);
        assert!(said.contains("0 of 2 live flows would be cut"), "{said}");

        let gone = other.replace(&web.program().display().to_string(), "/usr/bin/other");
        let gone = document(sandbox, "gone", &gone);
        let output = ringfence(&agent, &["policy", "apply", "--dry-run", text_of(&gone)]);
        assert_eq!(output.status.code(), Some(5), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        // It would be of the host, which may call whom it wants; the server takes only web.
        assert!(text.contains("1 of 2 live flows would be cut"), "{text}");
        assert!(
            text.contains("api") && text.contains("ingress tcp"),
            "{text}"
        );
        assert!(to_api.is_alive());
        let _said = ok(&agent, &["policy", "apply", text_of(&gone)]);
        assert!(!to_api.last().ok());
    });
}
