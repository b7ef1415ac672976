//! `cargo xtask`: the developer commands of Ringfence, one file each.
//!
//! A command finds or installs what it needs; what it cannot do, it says once, with the remedy.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool talks to its user"
)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod arm;
mod bench;
mod build;
mod debs;
mod demo;
mod fuzz;
mod process;
mod run;
mod setup;
mod soak;
mod system;
mod test;
mod tests_program;
mod toolchain;
mod vm;
mod workspace;

#[derive(Parser)]
#[command(
    name = "xtask",
    bin_name = "cargo xtask",
    about = "Developer commands of Ringfence"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install the eBPF toolchain and the programs that tests need
    Setup,
    /// Build the kernel programs, the agent and the controller
    Build(build::Args),
    /// Build, then run the agent in the foreground on a cgroup of its own, and remove both at the end
    Run(run::Args),
    /// Build, then show a policy allow, block and revoke, with real processes
    Demo(demo::Args),
    /// Type-check for 64-bit ARM what can be without a cross compiler
    Arm,
    /// Build, then measure what Ringfence costs, and write docs/benchmarks.md
    Bench(bench::Args),
    /// Look for inputs that break a parser, with libFuzzer
    Fuzz(fuzz::Args),
    /// Build, then let traffic run for long while policy, agent and controller come and go
    Soak(soak::Args),
    /// Check format, lints, documentation and ABI, and run all tests
    Test(test::Args),
    /// Run root tests in qemu on the kernel of this Debian (Linux 6.1 on Debian 12)
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup => setup::run(),
        Command::Build(args) => build::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Arm => arm::run(),
        Command::Bench(args) => bench::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Vm(args) => vm::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn usage_names_the_command_as_it_is_typed() {
        Cli::command().debug_assert();
        let mut command = Cli::command();
        command.build();
        let usage = command.render_usage().to_string();
        assert!(usage.contains("cargo xtask <COMMAND>"), "{usage}");
        let test = command
            .find_subcommand_mut("test")
            .map(clap::Command::render_usage);
        let usage = test.map(|usage| usage.to_string()).unwrap_or_default();
        assert!(usage.contains("cargo xtask test"), "{usage}");
    }
}
