//! A call that comes to nothing takes nothing over.

use ringfence_tests::scene;

use crate::ownership_stage::{By, GOOD, Stage};

/// `bind` on a socket that is bound or connected fails in the kernel (EINVAL), after the hook has run.
#[test]
fn a_bind_that_fails_changes_no_owner() {
    scene("failing-bind", |sandbox| {
        let stage = Stage::new(sandbox, By::Cgroup);
        let script = "a socket tcp 10; a bind 10 {port}; a listen 10; a fork; a cgroup {b}";
        let agent = stage.agent();
        let mut played = stage.play(script, GOOD);
        // The policy restricts no listening: the hook lets it pass, the kernel refuses it.
        let outcome = played.step("a bind 10 127.0.0.1:7001");
        assert!(outcome.failed("bind", "EINVAL"), "{outcome:?}");
        for step in ["c socket tcp 20", "c connect 20 {port}"] {
            let _ = played.step(step).expect_ok("the listener is still good's");
        }
        let _ = played.step("a accept 10 11").expect_ok("the call");
        agent.assert_counters();
    });
}
