//! A short soak; `cargo xtask soak` runs long ones.

use std::time::Duration;

use ringfence_tests::{scene, soak};

#[test]
fn traffic_is_judged_right_while_policy_agent_and_controller_come_and_go() {
    scene("soak", |sandbox| {
        let report = soak::run(sandbox, Duration::from_secs(20));
        assert_eq!(report.verdicts.wrong, 0, "wrong verdicts\n{report}");
        assert_eq!(report.verdicts.cut, 0, "streams cut\n{report}");
        assert_eq!(report.unaccounted(), 0, "{report}");
        assert!(
            report.verdicts.calls > 1000 && report.restarts > 1,
            "{report}"
        );
    });
}
