//! Policies and lines that several tests use.

use std::{path::Path, process::Command};

use ringfence_tests::{
    Actor, Agent, Outcome, Sandbox,
    policy::{policy, workload, workloads},
    poll::until,
};

/// web -> api:8080 -> db:5432, TCP, and nothing else.
pub fn three_tiers() -> String {
    workloads(&["web", "api", "db"]) + &three_policies("5432/tcp")
}

/// The policies of [`three_tiers`], with another port of the database.
pub fn three_policies(database: &str) -> String {
    let web = policy(
        "web",
        "",
        &[(
            "egress",
            "to = [{ workload = \"api\" }]\nports = [\"8080/tcp\"]",
        )],
    );
    let to_db = format!("to = [{{ workload = \"db\" }}]\nports = [\"{database}\"]");
    let api = policy(
        "api",
        "",
        &[
            (
                "ingress",
                "from = [{ workload = \"web\" }]\nports = [\"8080/tcp\"]",
            ),
            ("egress", &to_db),
        ],
    );
    let from_api = format!("from = [{{ workload = \"api\" }}]\nports = [\"{database}\"]");
    let db = policy(
        "db",
        "default-deny = [\"egress\"]",
        &[("ingress", &from_api)],
    );
    web + &api + &db
}

/// What an allowed flow leaves behind on one side.
pub struct Side<'a> {
    /// `egress` or `ingress`, protocol, source, destination and its address.
    pub flow: &'a str,
    /// Verdict, reason, rule.
    pub decision: &'a str,
    /// Bytes from source to destination and back.
    pub bytes: &'a str,
    /// Process.
    pub by: String,
}

impl Side<'_> {
    /// Its open and its close record.
    pub fn lines(&self) -> [String; 2] {
        let Self {
            flow,
            decision,
            bytes,
            by,
        } = self;
        [
            format!("open {flow} {decision} {by}"),
            format!("close {flow} {decision} {bytes}B {by}"),
        ]
    }
}

/// Calls a port on which nobody listens: allowed ends in ECONNREFUSED, denied in EPERM.
#[track_caller]
pub fn assert_allowed(caller: &Actor, address: &str, arguments: &[&str]) -> Outcome {
    let outcome = caller.tcp(address, arguments);
    assert!(
        outcome.failed("connect", "ECONNREFUSED"),
        "{address}: {outcome:?}"
    );
    outcome
}

/// Calls where the policy forbids it.
#[track_caller]
pub fn assert_refused(caller: &Actor, address: &str, arguments: &[&str]) -> Outcome {
    let what = format!("a call to {address}");
    caller
        .tcp(address, arguments)
        .expect_refused("connect", &what)
}

/// The line of a call that was allowed and that nobody took.
pub fn unanswered(flow: &str, decision: &str, by: &str) -> String {
    format!("close egress tcp {flow} {decision} unfinished 0/0B {by}")
}

/// An agent for `policy`, after `caller` has shown that it reaches all of `addresses` without one.
#[track_caller]
pub fn start_after(sandbox: &Sandbox, caller: &Actor, addresses: &[&str], policy: &str) -> Agent {
    for address in addresses {
        let _outcome = assert_allowed(caller, address, &[]);
    }
    Agent::start(sandbox, policy)
}

/// In `/app` the content that `app` has now may call port 81, and nothing else may call anybody.
pub fn by_content(app: &Actor) -> String {
    let digest = sha256(app.program());
    workload("app", &format!("cgroup = \"/app\", sha256 = \"{digest}\""))
        + &workload("rest", "cgroup = \"/app\"")
        + &policy("app", "", &[("egress", "ports = [\"81/tcp\"]")])
        + &policy("rest", "default-deny = [\"egress\"]", &[])
}

/// Until it is refused, and that it never passes before. An executable that was not judged yet is held.
#[track_caller]
pub fn assert_never_passes(what: &str, call: impl Fn() -> Outcome) {
    until(what, || {
        let outcome = call();
        assert_held(what, &outcome);
        outcome.failed("connect", "EPERM")
    });
}

/// Refused, at once or after it was held.
#[track_caller]
pub fn assert_held(what: &str, outcome: &Outcome) {
    let error = outcome.error.as_deref();
    let held = matches!(error, Some("EPERM" | "ECONNABORTED" | "timeout"));
    assert!(outcome.step == "connect" && held, "{what}: {outcome:?}");
}

/// Runs a script as `runner`, in a mount namespace of its own, of which nothing comes back.
pub fn unshared(runner: &Actor, script: &str) -> Outcome {
    runner.run(&[
        "run",
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-ec",
        script,
    ])
}

/// SHA-256 of a file, as hexadecimal digits.
pub fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(' ').next().unwrap().to_owned()
}
