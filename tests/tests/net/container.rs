//! Workloads chosen by what a container runtime says, with real containers of podman and containerd.

use std::path::Path;

use ringfence_tests::{
    Agent, Container, Containerd, Outcome, Podman, Sandbox,
    agent::Options,
    flows::line,
    podman::Spec,
    policy::{policy, workload, workloads},
    poll::until,
    scene,
};

use crate::common::assert_held;

const DB: &str = "127.0.0.1:5432";

/// An agent that asks these runtimes only. Whoever `web` matches may call `db`; whatever else is in
/// `/machine` may call nobody.
fn agent(sandbox: &Sandbox, docker: &[&Path], cri: &[&Path], web: &str) -> Agent {
    let list = |paths: &[&Path]| {
        let paths: Vec<_> = paths
            .iter()
            .map(|path| format!("\"{}\"", path.display()))
            .collect();
        format!("[{}]", paths.join(", "))
    };
    let options = Options {
        agent: "pending-seconds = 1".to_owned(),
        sections: format!(
            "[containers]\ndocker = {}\ncri = {}\n",
            list(docker),
            list(cri)
        ),
        ..Options::default()
    };
    let to_db = "to = [{ workload = \"db\" }]\nports = [\"5432/tcp\"]";
    let text = workloads(&["db"])
        + &workload("web", web)
        + &workload("rest", "cgroup = \"/machine\"")
        + &policy("web", "", &[("egress", to_db)])
        + &policy("rest", "default-deny = [\"egress\"]", &[]);
    Agent::start_with(sandbox, &options, &text)
}

fn spec<'a>(labels: &'a [(&'a str, &'a str)]) -> Spec<'a> {
    Spec {
        labels,
        below: "/machine",
        ..Spec::default()
    }
}

const CALL: [&str; 5] = ["call", "tcp", DB, "--timeout-ms", "4000"];

fn call(podman: &Podman<'_>, container: &Container) -> Outcome {
    podman.exec(container, "client", &CALL).last()
}

#[test]
fn containers_are_told_apart_by_what_podman_says_of_them() {
    scene("container-podman", |sandbox| {
        let db = sandbox.actor("db");
        let _server = db.serve(&["tcp", DB]);
        let mut podman = Podman::new(sandbox);
        let web = podman.run("web", &spec(&[("app", "web")]));
        let other = podman.run("other", &spec(&[("app", "other")]));
        for container in [&web, &other] {
            let _passed = call(&podman, container).expect_ok("without an agent");
        }
        let socket = podman.serve();
        let mut agent = agent(sandbox, &[&socket], &[], "container.label.app = \"web\"");

        // The first call may come before the answer of podman: it is held, not refused.
        let _passed = call(&podman, &web).expect_ok("by label");
        let _refused = call(&podman, &other).expect_refused("connect", "of another label");
        for record in [
            "open egress tcp web -> db 127.0.0.1:5432 allow rule-allow web/egress[0]",
            "deny egress tcp rest -> db 127.0.0.1:5432 deny default-deny",
        ] {
            let found = agent.settled(1, |flow| line(flow).starts_with(record));
            assert_eq!(found.len(), 1, "{record}");
        }

        agent.assert_counters();

        // What podman has said holds without it, also over a restart of the agent.
        podman.stop();
        agent.kill();
        let _passed = call(&podman, &web).expect_ok("with the agent dead");
        agent.restart();
        let _passed = call(&podman, &web).expect_ok("after a restart without podman");
        let _refused = call(&podman, &other).expect_refused("connect", "after a restart");

        // Of a new one nobody knows what it is, until podman is back.
        let late = podman.run("late", &spec(&[("app", "web")]));
        assert_held("podman is down", &call(&podman, &late));
        let warned = |agent: &Agent| {
            let warnings = agent.status().warnings;
            warnings
                .iter()
                .any(|it| it.contains("podman") && it.contains(&late.id))
        };
        until("the status says who waits for whom", || warned(&agent));
        let _again = podman.serve();
        until("podman has said what the container is", || {
            call(&podman, &late).ok()
        });
        until("nobody waits any more", || !warned(&agent));
    });
}

#[test]
fn a_cgroup_that_only_bears_the_name_of_a_container_is_not_that_container() {
    scene("container-fake", |sandbox| {
        let db = sandbox.actor("db");
        let _server = db.serve(&["tcp", DB]);
        let mut podman = Podman::new(sandbox);
        let web = podman.run("web", &spec(&[]));
        let socket = podman.serve();
        let agent = agent(sandbox, &[&socket], &[], "container.name = \"web\"");
        let fake = sandbox
            .actor("fake")
            .in_cgroup(sandbox, &format!("machine/x-{}", web.id));
        until("it is an ordinary cgroup", || {
            let outcome = fake.tcp(DB, &["--timeout-ms", "4000"]);
            assert!(!outcome.ok(), "{outcome:?}");
            let log = agent.log();
            log.iter()
                .any(|flow| line(flow).starts_with("deny egress tcp rest -> db"))
        });
        let _passed = call(&podman, &web).expect_ok("the container itself");
    });
}

#[test]
fn pods_are_told_apart_by_what_containerd_says_of_them() {
    scene("container-cri", |sandbox| {
        let db = sandbox.actor("db");
        let _server = db.serve(&["tcp", DB]);
        let mut containerd = Containerd::new(sandbox);
        containerd.serve();
        let socket = containerd.socket();
        let match_web = "k8s.namespace = \"shop\", k8s.pod-label.app = \"web\"";
        let agent = agent(sandbox, &[], &[&socket], match_web);
        let run = |namespace: &str, name: &str, app: &str| {
            let pod = containerd.pod(namespace, name, &[("app", app)], "/machine");
            let id = containerd.create(&pod, "main", &[]);
            (containerd.start(&id), pod)
        };
        let (web, _pod) = run("shop", "web-0", "web");
        let (api, _other_pod) = run("shop", "api-0", "api");
        let (elsewhere, _third) = run("test", "web-0", "web");
        let call = |container: &Container| containerd.exec(container, "client", &CALL).last();
        let _passed = call(&web).expect_ok("of the namespace, with the label");
        let _refused = call(&api).expect_refused("connect", "without the label");
        let _refused = call(&elsewhere).expect_refused("connect", "of another namespace");
        agent.assert_counters();
    });
}
