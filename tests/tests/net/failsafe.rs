//! The failsafe list holds whoever is called: also for a process that nobody can tell.

use ringfence_tests::{
    Agent,
    agent::Options,
    flows::line,
    policy::{policy, workload},
    poll::until,
    scene,
};

#[test]
fn the_failsafe_list_lets_in_to_a_process_of_unknown_identity() {
    scene("failsafe-unknown", |sandbox| {
        let operator = sandbox.actor("operator");
        let options = Options {
            sections:
                "[failsafe]\ninbound = [{ ports = [\"7001/tcp\"], from = [\"127.0.0.0/8\"] }]\n"
                    .to_owned(),
            ..Options::default()
        };
        let text = workload("left", "cgroup = \"/s*\"")
            + &workload("right", "cgroup = \"/*d\"")
            + &policy("left", "default-deny = [\"ingress\"]", &[]);
        let agent = Agent::start_with(sandbox, &options, &text);
        // Both claim it: it is nobody.
        let tied = sandbox.actor("sd");
        until("the tie is known", || {
            agent.status().warnings.iter().any(|it| it.contains("/sd"))
        });
        let _server = tied.serve(&["tcp", "127.0.0.1:7001"]);
        let _passed = operator.tcp("127.0.0.1:7001", &[]).expect_ok("by the list");
        let other = tied.start(&["bind", "tcp", "127.0.0.1:7002"]).last();
        let _refused = other.expect_refused("bind", "a port that is not in the list");
        let listed = "open ingress tcp host -> unknown 127.0.0.1:7001 allow failsafe-allow";
        let found = agent.settled(1, |flow| line(flow).starts_with(listed));
        assert_eq!(found.len(), 1);
    });
}
