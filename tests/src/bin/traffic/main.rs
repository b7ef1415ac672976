//! `ringfence-traffic`: a process that talks, as a workload of the tests.
//!
//! It joins its cgroup and its network namespace before it makes any socket, so that there is no race.
//! Each result is one line of JSON on standard output; the exit code is 0 if all went well, else 1.
#![expect(clippy::print_stdout, reason = "the output is what the tests read")]

mod client;
mod disguise;
mod flood;
mod groups;
mod hold;
mod insist;
mod narrow;
mod packet;
mod puppet;
mod sample;
mod server;
mod socket;
mod stepped;
mod swarm;

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _},
    net::{IpAddr, SocketAddr},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command as Process, ExitCode},
    time::Duration,
};

use clap::{Parser, Subcommand, ValueEnum};
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::{Gid, Uid, setgid, setuid},
};
use ringfence_tests::Outcome;

use groups::Gids;

#[derive(Parser)]
struct Cli {
    /// cgroup v2 directory to join first
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// Network namespace to join first
    #[arg(long)]
    netns: Option<PathBuf>,
    /// Real group to take on
    #[arg(long, requires = "groups")]
    gid: Option<u32>,
    /// Supplementary groups to have, instead of the caller's
    #[arg(long)]
    groups: Option<Gids>,
    /// User to become
    #[arg(long)]
    uid: Option<u32>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
}

#[derive(Subcommand)]
enum Command {
    /// Listen and answer until killed
    Serve {
        protocol: Protocol,
        address: SocketAddr,
        /// Bytes of the answer to each connection or datagram
        #[arg(long, default_value_t = 1)]
        reply: usize,
        /// Give back what comes, as it comes
        #[arg(long, conflicts_with = "silent")]
        echo: bool,
        /// UDP: answer nothing
        #[arg(long)]
        silent: bool,
        /// UDP: before each answer, milliseconds
        #[arg(long, default_value_t = 0)]
        delay_ms: u64,
        #[command(flatten)]
        sharing: server::Sharing,
    },
    /// Send one datagram to each of many ports from one socket, then wait for the end of standard input
    Spray {
        address: SocketAddr,
        /// How many ports, beginning with that of the address
        ports: u16,
    },
    /// TCP: call many times, each time with another socket
    Knock {
        address: SocketAddr,
        times: u16,
        /// Each time another port, beginning with that of the address
        #[arg(long)]
        spread: bool,
    },
    /// Send segments made by hand, and count the resets that come back
    Flood(flood::Flood),
    /// Start executables that nobody has seen, over and over, until a line on standard input
    Swarm(swarm::Swarm),
    /// Send a frame by a packet socket
    Frame(packet::Frame),
    /// Receive the frames that are sent so, until killed
    Sniff { device: String },
    /// Connect, send, read the whole answer
    Call(client::Call),
    /// The same from a process whose first thread has ended
    Headless(client::Call),
    /// Connect and exchange small messages until cut
    Hold {
        address: SocketAddr,
        /// Wait for a line on standard input between connecting and the first message
        #[arg(long)]
        wait: bool,
    },
    /// Send and call until a line on standard input, and count what passes once something was refused
    Insist { address: SocketAddr },
    /// Bind (and for TCP listen), then end
    Bind {
        protocol: Protocol,
        address: SocketAddr,
    },
    /// Bind (and for TCP listen) on many ports, say so, and hold them until standard input ends
    Listen {
        protocol: Protocol,
        address: SocketAddr,
        /// How many ports, beginning with that of the address
        #[arg(default_value_t = 1)]
        ports: u16,
    },
    /// TCP: make a socket, then for each list of supplementary groups take them on and call with the socket
    Regroup {
        address: SocketAddr,
        groups: Vec<Gids>,
    },
    /// Make a socket, then end
    Socket { kind: socket::Kind },
    /// One ICMP echo over a ping socket
    Ping {
        address: IpAddr,
        /// Connect the socket first
        #[arg(long)]
        connect: bool,
    },
    /// Become a copy of another program that lies in memory alone
    Memory {
        /// What nobody can do to it any more
        #[arg(long)]
        seal: Option<disguise::Seal>,
        /// By a path (`execve`) instead of a descriptor (`execveat`)
        #[arg(long)]
        by_path: bool,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<OsString>,
    },
    /// Run another program under ptrace, to its end
    Traced {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<OsString>,
    },
    /// Dirty the last page of a file through a mapping, and change its last byte after a line on standard input
    Mapped { file: PathBuf },
    /// Change the last byte of a file through a mapping
    Alter { file: PathBuf },
    /// Do what standard input says, a socket call a line
    Puppet,
    /// Hold a new network namespace until standard input ends
    Namespace,
    /// Listen on a unix socket that is root's, as another user, until standard input ends
    UnixListen { path: PathBuf, user: u32 },
    /// Call destinations such as `tcp/127.0.0.1:80` in turn, and say when what becomes of a call changes
    Sample {
        /// How often; without it, until a line on standard input
        #[arg(long)]
        rounds: Option<u64>,
        /// After each round, milliseconds
        #[arg(long, default_value_t = 0)]
        pause_ms: u64,
        #[arg(required = true)]
        targets: Vec<sample::Target>,
    },
    /// Take connections and give back datagrams on many ports, until standard input ends
    Sink {
        address: IpAddr,
        first: u16,
        ports: u16,
    },
    /// Become another program whose steps are decided about at a unix socket; it ends with the caller
    Stepped {
        socket: PathBuf,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<OsString>,
    },
    /// Become another program, which ends with the caller
    Run {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<OsString>,
    },
}

/// The step that failed, and how.
struct Failed(&'static str, io::Error);

type Result<T> = std::result::Result<T, Failed>;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = enter(&cli)
        .and_then(|()| act(cli.command))
        .unwrap_or_else(|failed| failure(&failed));
    print(&outcome);
    ExitCode::from(u8::from(!outcome.ok()))
}

fn enter(cli: &Cli) -> Result<()> {
    if let Some(netns) = &cli.netns {
        let netns = File::open(netns).map_err(at("netns"))?;
        setns(netns, CloneFlags::CLONE_NEWNET).map_err(at("netns"))?;
    }
    // Last: a guarded process is never seen in the namespace of the test, whose devices are not to be touched.
    if let Some(cgroup) = &cli.cgroup {
        fs::write(cgroup.join("cgroup.procs"), "0").map_err(at("cgroup"))?;
    }
    if let Some(groups) = &cli.groups {
        groups.take()?;
    }
    if let Some(gid) = cli.gid {
        setgid(Gid::from_raw(gid)).map_err(at("setgid"))?;
    }
    if let Some(uid) = cli.uid {
        setuid(Uid::from_raw(uid)).map_err(at("setuid"))?;
    }
    Ok(())
}

fn act(command: Command) -> Result<Outcome> {
    match command {
        Command::Serve {
            protocol,
            address,
            reply,
            echo,
            silent,
            delay_ms,
            sharing,
        } => {
            let answer = match (echo, silent) {
                (true, _) => server::Answer::Echo,
                (_, true) => server::Answer::Nothing,
                _ => server::Answer::Bytes(reply),
            };
            let delay = Duration::from_millis(delay_ms);
            server::serve(protocol, address, answer, delay, &sharing)
        }
        Command::Spray { address, ports } => client::spray(address, ports),
        Command::Knock {
            address,
            times,
            spread,
        } => client::knock(address, times, spread),
        Command::Swarm(swarm) => swarm::swarm(&swarm, print),
        Command::Flood(flood) => flood::flood(&flood),
        Command::Frame(frame) => packet::send(&frame),
        Command::Sniff { device } => packet::sniff(&device),
        Command::Call(call) => Ok(client::call(&call)),
        Command::Headless(call) => disguise::headless(call, print),
        Command::Hold { address, wait } => hold::hold(address, wait),
        Command::Insist { address } => insist::insist(address),
        Command::Bind { protocol, address } => socket::bind_only(protocol, address),
        Command::Listen {
            protocol,
            address,
            ports,
        } => server::hold(protocol, address, ports),
        Command::Regroup { address, groups } => groups::call(address, &groups),
        Command::Socket { kind } => socket::make_only(kind),
        Command::Ping { address, connect } => socket::ping(address, connect),
        Command::Memory {
            seal,
            by_path,
            program,
        } => disguise::from_memory(&program, seal, by_path),
        Command::Traced { program } => disguise::traced(&program),
        Command::Mapped { file } => disguise::alter_when_told(&file, print),
        Command::Alter { file } => disguise::alter_by_mapping(&file),
        Command::Puppet => puppet::play(),
        Command::Namespace => namespace(),
        Command::UnixListen { path, user } => {
            let _socket = socket::listen_as(&path, user)?;
            print(&done("listen"));
            Ok(until_input_ends())
        }
        Command::Sample {
            rounds,
            pause_ms,
            targets,
        } => sample::sample(&targets, rounds, Duration::from_millis(pause_ms)),
        Command::Sink {
            address,
            first,
            ports,
        } => sample::sink(address, first, ports),
        Command::Stepped { socket, program } => stepped::become_stepped(&socket, &program),
        Command::Run { program } => become_program(&program),
    }
}

fn namespace() -> Result<Outcome> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(at("unshare"))?;
    let up = Process::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()
        .map_err(at("loopback"))?;
    if !up.success() {
        return Err(Failed("loopback", io::ErrorKind::Other.into()));
    }
    print(&done("listen"));
    Ok(until_input_ends())
}

fn until_input_ends() -> Outcome {
    let mut nothing = Vec::new();
    let _end = io::stdin().read_to_end(&mut nothing);
    done("done")
}

fn become_program(program: &[OsString]) -> Result<Outcome> {
    // It stays set over `exec`, so that nothing outlives a test that is killed.
    set_pdeathsig(Signal::SIGKILL).map_err(at("prctl"))?;
    let (name, arguments) = program
        .split_first()
        .ok_or_else(|| Failed("exec", io::ErrorKind::InvalidInput.into()))?;
    Err(Failed("exec", Process::new(name).args(arguments).exec()))
}

fn print(outcome: &Outcome) {
    println!("{}", serde_json::json!(outcome));
}

fn done(step: &str) -> Outcome {
    Outcome {
        pid: std::process::id(),
        step: step.to_owned(),
        ..Outcome::default()
    }
}

/// Names the step at which something fails.
fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Failed {
    move |error| Failed(step, error.into())
}

fn failure(failed: &Failed) -> Outcome {
    Outcome {
        error: Some(name(&failed.1)),
        ..done(failed.0)
    }
}

/// `EPERM` and the like; `timeout` for a socket's time-out.
fn name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(nix::libc::EAGAIN) => "timeout".to_owned(),
        Some(number) => format!("{:?}", nix::errno::Errno::from_raw(number)),
        None if error.kind() == io::ErrorKind::TimedOut => "timeout".to_owned(),
        None => error.kind().to_string(),
    }
}
