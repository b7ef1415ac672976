//! The binary `ringfence`: the agent and its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringfence_agent::cli::main(ringfence_agent::run_agent)
}
