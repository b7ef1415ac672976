//! An open connection follows its cgroup to another workload, also where no walk over /proc finds it.

use ringfence_tests::{
    flows::line,
    policy::{policy, workload},
    scene,
};

use crate::ownership_stage::{By, GOOD, Stage};

#[test]
fn a_connection_in_flight_between_processes_is_judged_as_who_opened_it_is_now() {
    scene("hidden", |sandbox| {
        let stage = Stage::new(sandbox, By::Cgroup);
        let parked = "a socket tcp 10; a connect 10 {tcp}; a exchange 10; b mailbox {box}; a give {box} 10; a close 10";
        let agent = stage.agent();
        let mut played = stage.play(parked, GOOD);
        let mut kept = stage.play("a socket tcp 10; a connect 10 {tcp}; a exchange 10", GOOD);
        let moved = stage
            .policy(GOOD)
            .replace("cgroup = \"/good\"", "cgroup = \"/elsewhere\"")
            + &workload("jail", "cgroup = \"/good\"")
            + &policy("jail", "default-deny = [\"egress\"]", &[]);
        agent.set_policy(&moved);
        let _ = played.step("b take 10").expect_ok("the descriptor arrives");
        for outcome in [played.step("b exchange 10"), kept.step("a exchange 10")] {
            assert!(!outcome.ok(), "{outcome:?}");
        }
        let cut = "deny egress tcp jail -> db 127.0.0.1:5432 deny default-deny";
        let found = agent.settled(2, |flow| line(flow).starts_with(cut));
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found.iter().all(|flow| flow.revoked), "{found:#?}");
        agent.assert_counters();
    });
}
