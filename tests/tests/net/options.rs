//! Socket options: what the hook that sees them leaves to others, and what it does not see.

use std::fs::File;

use ringfence_tests::{
    Agent, Sandbox,
    foreign::{Foreign, SETSOCKOPT},
    policy::{policy, workloads},
    poll::until,
    scene,
};

/// tight is restricted.
fn text() -> String {
    workloads(&["tight", "free"]) + &policy("tight", "default-deny = [\"egress\"]", &[])
}

/// Attaches a program to a cgroup that takes `SO_TYPE`, which the kernel does not let anybody set, upon
/// itself (length -1). It goes with the descriptor.
fn takes_upon_itself(sandbox: &Sandbox, cgroup: &str) -> File {
    // r0 = 1; r2 = level; if r2 != 1 exit; r2 = name; if r2 != 3 exit; r2 = -1; length = r2; exit
    let instructions: [u64; 8] = [
        0x0000_0001_0000_00b7,
        0x0000_0000_0018_1261,
        0x0000_0001_0004_0255,
        0x0000_0000_001c_1261,
        0x0000_0003_0002_0255,
        0xffff_ffff_0000_02b7,
        0x0000_0000_0020_2163,
        0x0000_0000_0000_0095,
    ];
    Foreign::load_code(SETSOCKOPT, &instructions).link(&sandbox.cgroup(cgroup))
}

#[test]
fn what_another_program_decides_about_an_option_stands() {
    scene("options", |sandbox| {
        let mut puppet = sandbox.actor("tight").puppet();
        let _ = puppet.ask("open 2 1 0 10").expect_ok("a socket");
        let set = "option 10 1 3 01000000";
        let alone = puppet.ask(set);
        assert!(alone.failed("option", "ENOPROTOOPT"), "{alone:?}");
        let _other = takes_upon_itself(sandbox, "tight");
        let _ = puppet.ask(set).expect_ok("without the agent");
        let agent = Agent::start(sandbox, &text());
        let _ = puppet.ask(set).expect_ok("beside the agent");
        // Of a value that is longer than a page programs see the beginning; the kernel takes it as it is.
        let long = format!("option 10 1 12 {}", "05".repeat(5000));
        let _ = puppet.ask(&long).expect_ok("a long value");
        agent.assert_counters();
    });
}

/// `do_sock_setsockopt` (`net/socket.c`) runs no program for a call through the 32-bit interface.
#[test]
fn a_bypass_by_a_32_bit_call_is_a_named_gap() {
    scene("options-32", |sandbox| {
        let tight = sandbox.actor("tight");
        let _inside = tight.puppet();
        let agent = Agent::start(sandbox, &text());
        let refused = tight.run(&["frame", "lo", "60", "--bypass"]);
        let _ = refused.expect_refused("option", "a bypass");
        let features = agent.status().features;
        let gap = features.iter().find(|it| it.name == "setsockopt-32-bit");
        let is_open = !gap.unwrap().present;
        let mut call = tight.start(&["frame", "lo", "60", "--bypass-32"]);
        if is_open {
            let _ = call.last().expect_ok("what is out of reach");
        } else {
            // The kernel ends who calls an interface that it lacks.
            until("it has ended", || !call.is_alive());
            let said = call.unread();
            assert!(!said.iter().any(ringfence_tests::Outcome::ok), "{said:?}");
        }
        agent.assert_counters();
    });
}
