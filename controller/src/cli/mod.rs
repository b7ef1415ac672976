//! The command line.

mod agents;
mod check;
mod connect;
mod endpoints;
mod serve;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

const CONFIG: &str = "/etc/ringfence/controller.toml";

/// The policy server of Ringfence.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub struct Cli {
    /// What is logged: a level, or target=level, separated by commas
    #[arg(long, global = true, env = "RINGFENCE_LOG", default_value = "info")]
    log: String,
    /// How it is logged
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve policy to agents
    Serve {
        /// Configuration file
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
    },
    /// Validate the configuration and the policy directory, and change nothing
    Check {
        /// Configuration file
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
    },
    /// List agents, what they run and what they refused
    Agents(connect::Place),
    /// List endpoints: where workloads listen on the hosts whose agents are connected
    Endpoints(endpoints::Args),
}

/// Runs the command.
///
/// # Errors
/// What the user must know; the exit code is then 1.
pub async fn run(cli: Cli) -> Result<()> {
    log(&cli)?;
    match cli.command {
        Command::Serve { config } => serve::run(&config).await,
        Command::Check { config } => check::run(&config),
        Command::Agents(place) => agents::run(place).await,
        Command::Endpoints(args) => endpoints::run(args).await,
    }
}

fn log(cli: &Cli) -> Result<()> {
    use std::io::IsTerminal as _;

    let filter = tracing_subscriber::EnvFilter::try_new(&cli.log)
        .map_err(|error| anyhow::anyhow!("--log {:?}: {error}", cli.log))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let result = match cli.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    result.map_err(|error| anyhow::anyhow!("cannot log: {error}"))
}
