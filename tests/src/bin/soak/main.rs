//! Mixed traffic for long, while policy, agent and controller come and go: `ringfence-soak [MINUTES]`.
//!
//! Run as root with `RINGFENCE_BIN_DIR` naming the directory of the agent and the controller; `cargo xtask
//! soak` does that. Traffic stays in a network namespace made here. The exit code is 0 only if no verdict was wrong, no
//! stream was cut, every flow is accounted for, and the agent did not grow.
#![expect(clippy::unwrap_used, reason = "a measurement fails by panicking")]
#![expect(clippy::print_stdout, reason = "the figures go to the terminal")]

use std::{env, process::ExitCode, time::Duration};

use ringfence_tests::{Sandbox, soak};

/// An agent that grows by more is said to leak, KiB a minute.
const LEAK: f64 = 100.0;

fn main() -> ExitCode {
    let minutes = env::args().nth(1).map_or(30, |text| text.parse().unwrap());
    let sandbox = Sandbox::new("soak");
    let report = soak::run(&sandbox, Duration::from_secs(60 * minutes));
    println!("{report}");
    let left = sandbox.remove();
    if !left.is_empty() {
        println!("left behind: {left:?}");
    }
    let grows = report.memory.slope().is_some_and(|slope| slope > LEAK);
    let wrong = report.verdicts.wrong + report.verdicts.cut + report.unaccounted();
    ExitCode::from(u8::from(wrong > 0 || grows || !left.is_empty()))
}
