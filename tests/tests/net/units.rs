//! Units of systemd, by the cgroups that it puts them into.

use nix::sys::signal::Signal;
use ringfence_tests::{
    Agent,
    policy::{policy, workload},
    scene,
};

use crate::common::{assert_allowed, assert_refused};

const ALLOWED: &str = "127.0.0.1:81";
const OTHER: &str = "127.0.0.1:82";

#[test]
fn a_unit_has_its_policy_before_the_agent_has_seen_its_cgroup() {
    scene("unit", |sandbox| {
        // Names of controllers: systemd escapes only that of the second.
        let units = ["foo.service", "memory.service", "rdma.service"];
        let mut text = String::new();
        for unit in units {
            let name = unit.trim_end_matches(".service");
            text += &workload(name, &format!("systemd-unit = \"{unit}\""));
            text += &policy(name, "", &[("egress", "ports = [\"81/tcp\"]")]);
        }
        let probe = sandbox.actor("probe");
        let at = |path: &str| probe.in_cgroup(sandbox, path);
        // Without Ringfence each of these calls passes.
        let _ = assert_allowed(&at("system.slice"), OTHER, &[]);
        let mut agent = Agent::start(sandbox, &text);
        agent.daemon().signal(Signal::SIGSTOP);
        let paths = units.map(|unit| [unit.to_owned(), format!("_{unit}")]);
        for unit in paths.iter().flatten() {
            let unit = at(&format!("system.slice/{unit}"));
            let _ = assert_allowed(&unit, ALLOWED, &[]);
            let _ = assert_refused(&unit, OTHER, &[]);
        }
        let nobody = at("system.slice/other.service");
        let _ = assert_allowed(&nobody, OTHER, &[]);
        agent.daemon().signal(Signal::SIGCONT);
        // And once it has seen them.
        for unit in paths.iter().flatten() {
            let below = at(&format!("system.slice/{unit}/below"));
            let _ = assert_allowed(&below, ALLOWED, &[]);
            let _ = assert_refused(&below, OTHER, &[]);
        }
        let _ = assert_allowed(&nobody, OTHER, &[]);
    });
}
