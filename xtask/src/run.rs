//! `cargo xtask run`: the agent in the foreground, on a cgroup of its own, with nothing of the host's.
//!
//! An agent leaves its enforcement behind when it ends; here that ends with it, and so does the cgroup.

use std::{
    fs,
    path::Path,
    process::{Child, Command, ExitStatus},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::Pid,
};

use crate::{build, system, workspace};

/// Between two looks at the agent and at signals.
const TICK: Duration = Duration::from_millis(50);

/// Not the port of an agent that is installed on this machine.
const METRICS: &str = "127.0.0.1:9478";

#[derive(clap::Args)]
pub struct Args {
    /// What `ringfence agent` gets in addition
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Builds, prepares `target/run/`, runs the agent to its end and removes what it attached.
pub fn run(args: &Args) -> Result<()> {
    if !system::is_root() {
        bail!(
            "the agent loads programs into the kernel: `sudo -E env \"PATH=$PATH\" cargo xtask run`"
        );
    }
    build::run(&build::Args {
        debug: false,
        ebpf_only: false,
    })?;
    let cgroup = system::cgroup2_mount()?.join("ringfence-dev");
    let dir = workspace::target().join("run");
    let config = dir.join("agent.toml");
    fs::create_dir_all(&cgroup)
        .with_context(|| format!("cannot create the cgroup {}", cgroup.display()))?;
    fs::create_dir_all(dir.join("policy.d"))
        .and_then(|()| fs::write(&config, configuration(&cgroup)))
        .with_context(|| format!("cannot write {}", config.display()))?;
    println!("configuration  {}", config.display());
    println!("policies       {}", dir.join("policy.d").display());
    println!(
        "guarded        {0}: `echo $$ > {0}/cgroup.procs` puts a shell in it",
        cgroup.display()
    );
    println!("socket         {}", dir.join("agent.sock").display());
    println!("metrics        http://{METRICS}/metrics");
    let program = workspace::host_target().join("release/ringfence");
    let ended = Command::new(&program)
        .arg("agent")
        .arg("--config")
        .arg(&config)
        .args(&args.arguments)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))
        .and_then(|agent| wait(agent).context("cannot wait for the agent"));
    clean_up(&program, &config, &cgroup)?;
    let status = ended?;
    if !status.success() {
        bail!("the agent failed: {status}");
    }
    Ok(())
}

/// Waits for the agent. What would end this process ends the agent instead, so that there is someone
/// to clean up.
fn wait(mut agent: Child) -> Result<ExitStatus> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let received = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let pid = Pid::from_raw(agent.id().try_into()?);
    loop {
        if let Some(status) = agent.try_wait()? {
            return Ok(status);
        }
        if received.read_signal()?.is_some() {
            kill(pid, Signal::SIGTERM)?;
        }
        thread::sleep(TICK);
    }
}

/// Ends the enforcement and removes the cgroup; what can't be removed, it says how to.
fn clean_up(program: &Path, config: &Path, cgroup: &Path) -> Result<()> {
    let mut detach = Command::new(program);
    let _ = detach.arg("detach").arg("--config").arg(config);
    if !detach.status().is_ok_and(|status| status.success()) {
        bail!(
            "what the agent attached to {} may stay in force: `{} detach --config {}` removes it",
            cgroup.display(),
            program.display(),
            config.display()
        );
    }
    if let Err(error) = fs::remove_dir(cgroup) {
        println!(
            "{0} stays ({error}): move what is in it elsewhere (`echo PID > {1}/cgroup.procs`), then \
             `rmdir {0}`",
            cgroup.display(),
            cgroup.parent().unwrap_or(cgroup).display()
        );
    }
    Ok(())
}

/// Relative paths count from the directory of the file.
fn configuration(cgroup: &Path) -> String {
    format!(
        "# Written by `cargo xtask run`.\n\
         [agent]\n\
         cgroup-root = \"{}\"\n\
         policy-dir = \"policy.d\"\n\
         state-dir = \"state\"\n\
         pin-dir = \"/sys/fs/bpf/ringfence-dev\"\n\n\
         [api]\n\
         unix = \"agent.sock\"\n\n\
         [metrics]\n\
         listen = \"{METRICS}\"\n",
        cgroup.display()
    )
}
