//! Policy from a controller.

use ringfence_tests::{Agent, Controller, flows::line, poll::until, scene};

use crate::common::{assert_allowed, assert_refused, three_tiers};

#[test]
fn policy_comes_from_the_controller_and_stays_without_it() {
    scene("controller", |sandbox| {
        let web = sandbox.actor("web");
        let _ = assert_allowed(&web, "127.0.0.1:81", &[]);
        let mut controller = Controller::start(sandbox, &three_tiers());
        let mut agent = Agent::start_with(sandbox, &controller.options(), "");
        until("the controller's policy is in force", || {
            let status = agent.status();
            status.policy_source == "controller" && status.controller_generation == 1
        });
        let refused = assert_refused(&web, "127.0.0.1:81", &[]);
        until("the controller knows that it is applied", || {
            let state = controller.agent();
            state.get("applied") == Some(&1.into())
                && state.get("host") == Some(&"test-host".into())
        });

        assert!(controller.stop(), "{}", controller.daemon().log());
        let _ = assert_refused(&web, "127.0.0.1:81", &[]);
        until("the agent notices", || {
            agent.status().controller_state == "connecting"
        });
        // A host starts with the last good policy.
        agent.kill();
        agent.restart();
        assert_eq!(agent.status().policy_source, "cache");
        let _ = assert_refused(&web, "127.0.0.1:81", &[]);

        controller.restart();
        until("the agent is back at the controller", || {
            agent.status().controller_state == "connected"
        });
        controller.set_policy(&three_tiers().replace("8080/tcp", "8080-8081/tcp"));
        until("a change reaches the agent after both restarts", || {
            agent.status().controller_generation == 2
        });
        let lines: Vec<_> = agent.log().iter().map(line).collect();
        assert!(!lines.is_empty(), "{refused:?}");
    });
}

#[test]
fn an_agent_refuses_what_it_can_not_apply_and_says_so() {
    scene("nack", |sandbox| {
        let web = sandbox.actor("web");
        let controller = Controller::start(sandbox, &three_tiers());
        // Valid by itself; beside the agent's own policy the name is taken.
        let own = "[[workload]]\nname = \"extra\"\nmatch = { cgroup = \"/extra\" }\n";
        let agent = Agent::start_with(sandbox, &controller.options(), own);
        until("both policies are in force", || {
            agent.status().workloads == 4
        });
        controller.set_policy(&(three_tiers() + own));
        until("the refusal is known on both sides", || {
            let state = controller.agent();
            let error = state.get("error").and_then(|error| error.as_str());
            error.is_some_and(|error| error.contains("extra"))
                && agent.status().policy_error.contains("extra")
        });
        let _ = assert_refused(&web, "127.0.0.1:81", &[]);
        assert_eq!(agent.status().workloads, 4);
    });
}

#[test]
fn a_refused_generation_comes_into_force_when_the_local_document_that_was_in_its_way_goes() {
    scene("retry", |sandbox| {
        let web = sandbox.actor("web");
        let mut controller = Controller::start(sandbox, &three_tiers());
        let own = "[[workload]]\nname = \"extra\"\nmatch = { cgroup = \"/extra\" }\n";
        let agent = Agent::start_with(sandbox, &controller.options(), own);
        until("both policies are in force", || {
            agent.status().workloads == 4
        });
        let _ = assert_refused(&web, "127.0.0.1:81", &[]);
        let open = three_tiers().replace(
            "to = [{ workload = \"api\" }]\nports = [\"8080/tcp\"]",
            "ports = [\"81/tcp\"]",
        );
        controller.set_policy(&(open + own));
        until("the refusal is shown", || {
            let error = agent.status().policy_error;
            error.contains("generation 2 refused: ") && error.contains("extra")
        });
        let _ = assert_refused(&web, "127.0.0.1:81", &[]);

        agent.write_policy("# The controller knows it now.\n");
        until("the generation is in force", || {
            let status = agent.status();
            status.controller_generation == 2 && status.policy_error.is_empty()
        });
        let _ = assert_allowed(&web, "127.0.0.1:81", &[]);
        assert_eq!(agent.status().workloads, 4);
        until("the controller knows it", || {
            let state = controller.agent();
            state.get("applied") == Some(&2.into())
                && state.get("error").and_then(|error| error.as_str()) == Some("")
        });

        let endpoint = agent.status().controller_endpoint;
        assert!(endpoint.starts_with("http://127.0.0.1:"), "{endpoint}");
        assert!(controller.stop(), "{}", controller.daemon().log());
        until("the status says why the controller is away", || {
            let status = agent.status();
            status.controller_state == "connecting" && !status.controller_error.is_empty()
        });
        controller.restart();
        until("the reason is gone with its cause", || {
            let status = agent.status();
            status.controller_state == "connected" && status.controller_error.is_empty()
        });
    });
}

#[test]
fn a_first_start_without_a_directory_waits_for_the_controller() {
    scene("no-directory", |sandbox| {
        let web = sandbox.actor("web");
        let controller = Controller::start(sandbox, &three_tiers());
        let mut options = controller.options();
        options.agent = "policy-dir = \"none.d\"\n".to_owned();
        let agent = Agent::start_with(sandbox, &options, "");
        until("the controller's policy is in force", || {
            agent.status().controller_generation == 1
        });
        let _ = assert_refused(&web, "127.0.0.1:81", &[]);
        let status = agent.status();
        assert!(status.policy_error.is_empty(), "{status:?}");
    });
}
