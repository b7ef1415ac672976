//! The command line `ringfence`.
//!
//! Asks the agent over its unix socket, except for `policy check`, which needs no agent, and `detach`,
//! which refuses where one runs. Writes answers to standard output and everything else to standard
//! error. Text that comes from processes is cleaned of control characters before it reaches a terminal.

mod apply;
mod args;
mod check;
mod client;
mod detach;
mod error;
mod explain;
mod inventory;
mod json;
mod line;
mod lists;
mod observe;
mod output;
mod policy;
mod status;
#[cfg(test)]
mod tests;
mod why;
mod words;

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser as _};
use ringfence_proto::text;

pub use args::Cli;
use args::{Command, EndpointCommand, IdentityCommand, PolicyCommand, WorkloadCommand};
pub use error::CliError;
use output::Output;

use crate::privileges;

/// Runs the command line of this process. `run_agent` runs the daemon with the configuration at a path
/// until it ends.
#[must_use]
pub fn main(run_agent: impl FnOnce(&Path) -> ExitCode) -> ExitCode {
    let cli = Cli::parse();
    if let Command::Agent { config, check } = &cli.command
        && !check
    {
        return run_agent(config);
    }
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

/// Runs any command but the daemon.
fn run(cli: &Cli) -> Result<(), CliError> {
    let mut output = Output::stdout(cli.output);
    match &cli.command {
        Command::Agent { config, .. } => {
            // What may be written is asked with the rights that the agent will have.
            if let Err(error) = privileges::drop_others() {
                note(&format!(
                    "warning: privileges could not be dropped: {error}"
                ));
            }
            check::run(config, &mut output)?;
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "ringfence", &mut script);
            output.bytes(&script)?;
        }
        Command::Detach(args) => detach::run(args, &mut output)?,
        Command::Policy(PolicyCommand::Check { paths }) => policy::check(paths, &mut output)?,
        Command::Status(place) => block_on(status::run(&place.socket, &mut output))?,
        Command::Observe { place, args } => {
            block_on(observe::run(&place.socket, args, &mut output))?;
        }
        Command::Explain { place, args } => match args.pid {
            Some(pid) => block_on(why::run(&place.socket, pid, args, &mut output))?,
            None => block_on(explain::run(&place.socket, args, &mut output))?,
        },
        Command::Policy(PolicyCommand::List(place)) => {
            block_on(lists::policies(&place.socket, &mut output))?;
        }
        Command::Policy(PolicyCommand::Apply { place, args }) => {
            block_on(apply::apply(&place.socket, args, &mut output))?;
        }
        Command::Policy(PolicyCommand::Confirm(place)) => {
            block_on(apply::confirm(&place.socket, &mut output))?;
        }
        Command::Policy(PolicyCommand::Rollback(place)) => {
            block_on(apply::rollback(&place.socket, &mut output))?;
        }
        Command::Workload(WorkloadCommand::List {
            place,
            name,
            workload,
        }) => {
            let one = name.as_deref().or(workload.as_deref());
            block_on(inventory::workloads(&place.socket, one, &mut output))?;
        }
        Command::Identity(IdentityCommand::List(place)) => {
            block_on(inventory::identities(&place.socket, &mut output))?;
        }
        Command::Endpoint(EndpointCommand::List { place, workload }) => {
            block_on(inventory::endpoints(&place.socket, workload, &mut output))?;
        }
    }
    output.flush()
}

fn block_on(task: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Output)?
        .block_on(task)
}

/// Tells what went wrong, in one line, and gives the exit code.
fn report(error: &CliError) -> ExitCode {
    if error.reader_is_gone() {
        return ExitCode::SUCCESS;
    }
    if let Some(text) = error.text() {
        note(&format!("ringfence: {text}"));
    }
    ExitCode::from(error.exit_code())
}

/// A line on standard error. If that is closed there is nobody to tell.
fn note(text: &str) {
    let _closed = writeln!(io::stderr(), "{}", text::clean_lines(text));
}
