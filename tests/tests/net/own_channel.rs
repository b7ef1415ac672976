//! No policy cuts the way of the agent to its controller, nor the failsafe list.

use std::{fs, path::Path, process::Command};

use ringfence_tests::{
    Agent, Controller, Options, Sandbox,
    controller::launched_at,
    flows::{event, line},
    policy::{policy, workload},
    poll::until,
    program,
    sandbox::cgroup2_mount,
    scene,
};

use crate::common::{assert_never_passes, assert_refused};

/// Everything is forbidden to a workload that is the agent's own executable in the agent's own cgroup, and to everything
/// else in the guarded directory.
fn against_everybody(exe: &Path) -> String {
    let everything = [
        (
            "deny-egress",
            "to = [{ cidr = \"0.0.0.0/0\" }, { cidr = \"::/0\" }]",
        ),
        (
            "deny-ingress",
            "from = [{ cidr = \"0.0.0.0/0\" }, { cidr = \"::/0\" }]",
        ),
    ];
    let all = "default-deny = [\"egress\", \"ingress\", \"listen\"]";
    workload(
        "daemons",
        &format!("cgroup = \"/daemons\", exe = \"{}\"", exe.display()),
    ) + &policy("daemons", all, &everything)
        + &workload("rest", "cgroup = \"/**\"")
        + &policy("rest", all, &everything)
}

/// Ends the stream, and waits until there is another one.
#[track_caller]
fn connect_anew(agent: &Agent, controller: &mut Controller) {
    assert!(controller.stop());
    until("the stream is gone", || {
        agent.status().controller_state == "connecting"
    });
    controller.restart();
    until("the agent has connected anew", || {
        agent.status().controller_state == "connected"
    });
}

/// Moves a process into a cgroup.
fn enter(cgroup: &Path, pid: u32) {
    fs::create_dir_all(cgroup).unwrap();
    fs::write(cgroup.join("cgroup.procs"), pid.to_string()).unwrap();
}

/// Back out, so that the sandbox can be removed.
fn leave(pid: u32) {
    fs::write(cgroup2_mount().join("cgroup.procs"), pid.to_string()).unwrap();
}

fn status(agent: &Agent) -> String {
    let output = Command::new(program::product("ringfence"))
        .args(["status", "-o", "compact", "--socket"])
        .arg(agent.socket())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_policy_against_the_agent_itself_does_not_cut_it_off_from_its_controller() {
    scene("own-channel", |sandbox: &Sandbox| {
        let exe = program::product("ringfence").canonicalize().unwrap();
        let daemons = sandbox.guarded().join("daemons");
        let text = against_everybody(&exe);
        let mut controller = Controller::start(sandbox, "# empty\n");
        let mut agent = Agent::start_with(sandbox, &controller.options(), "");
        enter(&daemons, agent.daemon().pid());
        until("the first policy is in force", || {
            agent.status().controller_generation == 1
        });
        controller.set_policy(&text);
        until("the policy against everybody is in force", || {
            agent.status().controller_generation == 2
        });
        // It holds for others of that cgroup, and for the agent's own executable when another runs it.
        let mute = sandbox.actor("daemons");
        assert_never_passes("a call of another", || mute.tcp("127.0.0.1:81", &[]));

        // The stream that is open goes on.
        controller.set_policy(&(text.clone() + "# again\n"));
        until("a change reaches the agent", || {
            agent.status().controller_generation == 3
        });
        // A new one is made, by the agent that runs and by one that is started under this policy.
        connect_anew(&agent, &mut controller);
        leave(agent.daemon().pid());
        agent.kill();
        agent.restart();
        enter(&daemons, agent.daemon().pid());
        assert!(controller.stop());
        until("the stream is gone", || {
            agent.status().controller_state == "connecting"
        });
        controller.restart();
        controller.set_policy(&(text + "# and again\n"));
        until("a change reaches the new agent", || {
            agent.status().controller_generation == 4
        });
        // Its interfaces answer, metrics over TCP included.
        assert!(
            status(&agent).starts_with("ENFORCING"),
            "{}",
            status(&agent)
        );
        assert!(agent.metrics().sum("ringfence_controller_connected", &[]) <= 1);
        assert_never_passes("a call of another", || mute.tcp("127.0.0.1:81", &[]));
        let pid = agent.daemon().pid();
        let own = || {
            let mut flows = agent.client().flows(Vec::new()).unwrap();
            flows.retain(|flow| flow.process.as_ref().is_some_and(|it| it.pid == pid));
            flows
        };
        until("its own channel is recorded as such", || {
            own()
                .iter()
                .any(|flow| line(flow).contains("own-channel-allow"))
        });
        let own = own();
        assert!(own.iter().all(|flow| event(flow) != "deny"), "{own:#?}");
        leave(pid);
    });
}

#[test]
fn a_policy_against_a_controller_on_this_host_does_not_cut_it_off_from_the_agent() {
    scene("own-controller", |sandbox: &Sandbox| {
        let everything = |direction, peers| {
            let any = "[{ cidr = \"0.0.0.0/0\" }, { cidr = \"::/0\" }]";
            (direction, format!("{peers} = {any}"))
        };
        let rules = [
            everything("deny-egress", "to"),
            everything("deny-ingress", "from"),
        ];
        let rules = rules
            .each_ref()
            .map(|(direction, rule)| (*direction, rule.as_str()));
        let text = workload("control", "cgroup = \"/control\"")
            + &policy(
                "control",
                "default-deny = [\"egress\", \"ingress\"]",
                &rules,
            );
        let control = sandbox.actor("control");
        let mut controller = Controller::start_at(&control, sandbox, "# empty\n");
        let caller = sandbox.actor("caller");
        let options = Options {
            launcher: launched_at(&sandbox.actor("agent")),
            ..controller.options()
        };
        let agent = Agent::start_with(sandbox, &options, "");
        until("the first policy is in force", || {
            agent.status().controller_generation == 1
        });
        controller.set_policy(&text);
        until("the policy against the controller is in force", || {
            agent.status().controller_generation == 2
        });
        let address = controller.address().to_string();
        assert_never_passes("a call of another", || caller.tcp(&address, &[]));

        // The stream that is open goes on, and a new one is made.
        controller.set_policy(&(text.clone() + "# again\n"));
        until("a change reaches the agent", || {
            agent.status().controller_generation == 3
        });
        connect_anew(&agent, &mut controller);
        let inbound = agent.client().flows(Vec::new()).unwrap();
        assert!(inbound.iter().map(line).any(|line| {
            line.starts_with("open ingress tcp agent -> control")
                && line.contains("own-channel-allow")
        }));
    });
}

#[test]
fn the_failsafe_list_stands_above_a_policy_that_denies_everything() {
    scene("failsafe-deny", |sandbox| {
        let [api, operator] = ["api", "operator"].map(|name| sandbox.actor(name));
        let options = Options {
            sections:
                "[failsafe]\ninbound = [{ ports = [\"7001/tcp\"], from = [\"127.0.0.0/8\"] }]\n"
                    .to_owned(),
            ..Options::default()
        };
        let _held = api.serve(&["tcp", "127.0.0.1:7001"]);
        let _other = api.serve(&["tcp", "127.0.0.1:7002"]);
        let text = workload("api", "cgroup = \"/api\"")
            + &policy(
                "api",
                "default-deny = [\"egress\", \"ingress\", \"listen\"]",
                &[
                    ("deny-ingress", "ports = [\"1-65535/tcp\"]"),
                    ("deny-egress", "ports = [\"1-65535/tcp\"]"),
                ],
            );
        let agent = Agent::start_with(sandbox, &options, &text);
        let _passed = operator.tcp("127.0.0.1:7001", &[]).expect_ok("by the list");
        let _refused = assert_refused(&operator, "127.0.0.1:7002", &[]);
        // Another policy changes nothing of it.
        agent.set_policy(&(text + "# again\n"));
        let _passed = operator.tcp("127.0.0.1:7001", &[]).expect_ok("by the list");
        agent.assert_counters();
    });
}
