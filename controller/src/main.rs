//! The policy server of Ringfence.

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;
use ringfence_controller::cli::{Cli, run};
use ringfence_proto::text;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told if this fails.
            let told = text::clean_lines(&text::causes(error.as_ref()));
            let _ = writeln!(std::io::stderr(), "ringfence-controller: {told}");
            ExitCode::FAILURE
        }
    }
}
