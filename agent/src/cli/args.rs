//! Commands, options and their help.

use std::{net::IpAddr, path::PathBuf, str::FromStr};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use ringfence_proto::{limits, v1};

use crate::config::{DEFAULT_PATH, DEFAULT_SOCKET};

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  the answer is no: the policy or the configuration is not valid, the flow that `explain` was asked about is
     denied, or the request was refused
  2  wrong usage, or a question about what is not there
  3  the agent can't be reached
  4  status: the host is not guarded, because programs are not attached
  5  policy apply --dry-run: the policy is valid, and would cut live flows or refuse listeners";

const EXPLAIN: &str =
    "ringfence explain --from <WHO> --to <WHO> --port <PORT> [--protocol <PROTOCOL>]
       ringfence explain --pid <N> [--to <WHO> --port <PORT> [--protocol <PROTOCOL>]]";

/// eBPF host microsegmentation: which program may talk to which, enforced by the kernel.
#[derive(Debug, Parser)]
#[command(name = "ringfence", version, about, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    /// Form of the output; `observe` writes compact lines unless told otherwise, everything else a table
    #[arg(short, long, global = true, value_name = "FORMAT")]
    pub(super) output: Option<Format>,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Where the agent is that a command asks.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// Unix socket of the agent
    #[arg(long, env = "RINGFENCE_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub(super) socket: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the agent
    Agent {
        /// Configuration file
        #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
        config: PathBuf,
        /// Only check the configuration file, what it names on this host (cgroup-root, pin-dir, the
        /// directories, the controller's certificates, sockets of container runtimes) and what the kernel offers
        #[arg(long)]
        check: bool,
    },
    /// Show the state of enforcement; exit code 4 when the host is not guarded
    Status(Place),
    /// Show flow records (times are UTC)
    Observe {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        args: ObserveArgs,
    },
    /// Tell what would be decided about a flow, and by which rule (exit code 1 if it is denied), or which
    /// identity a live process has and why
    #[command(override_usage = EXPLAIN)]
    Explain {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        args: ExplainArgs,
    },
    /// Check, change and list policies
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// List workloads
    #[command(subcommand)]
    Workload(WorkloadCommand),
    /// List identities
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// List endpoints: where workloads listen
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// End enforcement: remove the hooks and maps that stopped agents of any version left in force
    Detach(DetachArgs),
    /// Write a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Check policy documents without an agent: files, or directories of *.toml
    Check {
        /// Files or directories; they are checked together, as one policy
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Put documents into force, and into the agent's policy directory (exit code 5: a dry run found what would be cut)
    Apply {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        args: ApplyArgs,
    },
    /// Keep the change that `apply --confirm` has put on trial
    Confirm(Place),
    /// Undo the change that `apply --confirm` has put on trial, or drop one that is confirmed and can't be written
    Rollback(Place),
    /// List the policies in force, and say what is on trial
    List(Place),
}

#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// Files, or directories of *.toml: they are added to the policy directory or replace those of the same name
    #[arg(required = true, value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
    /// Put the change on trial: it is rolled back after this time (as in 60s, 10m or 1h; 24h at most) unless `ringfence
    /// policy confirm` comes before
    #[arg(long, value_name = "TIME", conflicts_with = "dry_run")]
    pub(super) confirm: Option<Seconds>,
    /// Change nothing; show which live flows would be cut and which listeners refused, and by what rule
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Remove the documents of the policy directory that are not named
    #[arg(long)]
    pub(super) prune: bool,
}

/// A time of the command line, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seconds(pub(super) u32);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit = text.find(|c: char| !c.is_ascii_digit());
        let (number, unit) = text.split_at(unit.unwrap_or(text.len()));
        let factor = match unit {
            "s" => Some(1),
            "m" => Some(60),
            "h" => Some(3600),
            _ => None,
        };
        let number = number.parse::<u32>().ok().zip(factor);
        let seconds = number.and_then(|(number, factor)| number.checked_mul(factor));
        let valid = seconds.filter(|it| (1..=limits::MAX_CONFIRM_SECONDS).contains(it));
        valid
            .map(Self)
            .ok_or_else(|| "write a time from 1s to 24h, as in 60s, 10m or 1h".to_owned())
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum WorkloadCommand {
    /// List workloads with their live processes, sockets and listeners; one that is named, in full
    List {
        #[command(flatten)]
        place: Place,
        /// Only this workload, in full; host, pending or unknown: the live processes that are of none
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// Another way to write NAME
        #[arg(long, value_name = "NAME", conflicts_with = "name")]
        workload: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum IdentityCommand {
    /// List every identity, the reserved ones included, with the number of its live processes and cgroups
    List(Place),
}

#[derive(Debug, Subcommand)]
pub(super) enum EndpointCommand {
    /// List TCP listeners and bound UDP sockets of workloads, in every network namespace
    List {
        #[command(flatten)]
        place: Place,
        /// Only of this workload
        #[arg(long, value_name = "NAME")]
        workload: Vec<String>,
    },
}

/// No agent may be running: it would attach again.
#[derive(Debug, Args)]
pub(super) struct DetachArgs {
    /// Configuration file of the agent, which names its pin directory
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    pub(super) config: PathBuf,
    /// The pin directory itself; no configuration is read then
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub(super) pin_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("subject").args(["from", "pid"]).required(true)))]
pub(super) struct ExplainArgs {
    /// Source: a workload, workload@address, a numeric address, or host, world, remote-host. Rules on addresses
    /// and the failsafe list count where the address is given
    #[arg(long, value_name = "WHO", requires_all = ["to", "port"])]
    pub(super) from: Option<String>,
    /// A live process of this host, by its number: which identity it has, and why. With --to and --port, what would be
    /// decided about its flow besides
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) pid: Option<u32>,
    /// Destination, in the form of --from
    #[arg(long, value_name = "WHO", requires = "port")]
    pub(super) to: Option<String>,
    /// Destination port; for ICMP the type
    #[arg(long, requires = "to")]
    pub(super) port: Option<u16>,
    /// tcp, udp, icmp, icmpv6 or a protocol number
    #[arg(long, default_value = "tcp")]
    pub(super) protocol: String,
}

/// Options of one kind add up, options of different kinds must all match.
#[derive(Debug, Default, Args)]
pub(super) struct ObserveArgs {
    /// Go on with new records until interrupted
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Number of past records that match; 0: all that are kept (with --follow: none) [default: 20, with --follow 0]
    #[arg(long, value_name = "N")]
    pub(super) last: Option<u64>,
    /// Source's or destination's workload
    #[arg(long, value_name = "NAME")]
    pub(super) workload: Vec<String>,
    /// Source's or destination's port
    #[arg(long)]
    pub(super) port: Vec<u16>,
    /// Source's or destination's address, or a network
    #[arg(long, value_name = "ADDRESS", value_parser = network)]
    pub(super) address: Vec<IpNet>,
    /// What traffic follows
    #[arg(long)]
    pub(super) verdict: Vec<Verdict>,
    /// What it would follow with the draft policies in force: allow or deny
    #[arg(long, value_parser = draft_verdict)]
    pub(super) draft_verdict: Vec<Verdict>,
    /// Who opened the flow
    #[arg(long)]
    pub(super) direction: Vec<Direction>,
    /// tcp, udp, icmp, icmpv6 or a protocol number
    #[arg(long, value_parser = protocol)]
    pub(super) protocol: Vec<u8>,
    /// What happened
    #[arg(long)]
    pub(super) event: Vec<Event>,
}

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns
    Table,
    /// JSON; `observe` writes one object per line
    Json,
    /// One line per item, without a header
    Compact,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Verdict {
    Allow,
    Deny,
    Audit,
}

impl From<Verdict> for i32 {
    fn from(verdict: Verdict) -> Self {
        let message = match verdict {
            Verdict::Allow => v1::Verdict::Allow,
            Verdict::Deny => v1::Verdict::Deny,
            Verdict::Audit => v1::Verdict::Audit,
        };
        message.into()
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Direction {
    Egress,
    Ingress,
    Listen,
}

impl From<Direction> for i32 {
    fn from(direction: Direction) -> Self {
        let message = match direction {
            Direction::Egress => v1::Direction::Egress,
            Direction::Ingress => v1::Direction::Ingress,
            Direction::Listen => v1::Direction::Listen,
        };
        message.into()
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Event {
    Open,
    Close,
    Deny,
}

impl From<Event> for i32 {
    fn from(event: Event) -> Self {
        let message = match event {
            Event::Open => v1::FlowEvent::Open,
            Event::Close => v1::FlowEvent::Close,
            Event::Deny => v1::FlowEvent::Deny,
        };
        message.into()
    }
}

fn draft_verdict(text: &str) -> Result<Verdict, String> {
    match text {
        "allow" => Ok(Verdict::Allow),
        "deny" => Ok(Verdict::Deny),
        "audit" => Err(
            "no draft verdict is `audit`: it is an enforced deny that passes in draft mode; write --verdict audit, or --draft-verdict deny"
                .to_owned(),
        ),
        _ => Err("write allow or deny".to_owned()),
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    text.parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "write an address or a network, as in 10.0.0.0/8".to_owned())
}

fn protocol(text: &str) -> Result<u8, String> {
    match text {
        "tcp" => Ok(6),
        "udp" => Ok(17),
        "icmp" => Ok(1),
        "icmpv6" => Ok(58),
        number => number
            .parse()
            .map_err(|_| "write tcp, udp, icmp, icmpv6 or a number from 0 to 255".to_owned()),
    }
}
