//! The measurements of docs/benchmarks.md: `ringfence-bench measure`, which `cargo xtask bench` runs.
//!
//! Each configuration is a stage of its own: cgroups, two network namespaces joined by a veth pair, and an agent or
//! nftables rules, all made here and removed at the end. Stages are measured in turns. Nothing is attached to
//! the root cgroup, and traffic stays inside the namespaces.
#![expect(clippy::unwrap_used, reason = "a measurement fails by panicking")]
#![expect(clippy::print_stdout, reason = "the figures go to the terminal")]

mod bars;
mod changes;
mod crowd;
mod flat;
mod hooks;
mod load;
mod markdown;
mod nft;
mod paired;
mod plan;
mod plot;
mod policies;
mod process;
mod report;
mod scale;
mod scenario;
mod stage;
mod stats;
mod variant;
mod web;
mod worker;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure and print the bars
    Measure(plan::Plan),
    /// Write what a run measured into a directory of documents
    Render {
        /// What `measure --json` wrote
        json: PathBuf,
        /// The directory that holds benchmarks.md
        docs: PathBuf,
    },
    /// One of the processes that talk
    #[command(hide = true)]
    Worker { role: String },
}

fn main() {
    match Cli::parse().command {
        Command::Measure(plan) => {
            process::take_signals();
            plan.run();
        }
        Command::Render { json, docs } => {
            let report = report::Report::read(&json);
            plot::draw(&docs, &report.flat);
            markdown::replace(&docs.join("benchmarks.md"), &report);
        }
        Command::Worker { role } if role == "call" => worker::call(),
        Command::Worker { role } => worker::serve(&role),
    }
}
