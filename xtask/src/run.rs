//! `cargo xtask run`: the agent in the foreground, on a cgroup of its own, with nothing of the host's.

use std::{fs, os::unix::process::CommandExt as _, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::{build, system, workspace};

#[derive(clap::Args)]
pub struct Args {
    /// What `ringfence agent` gets in addition
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Builds, prepares `target/run/`, and becomes the agent.
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
    let program = workspace::host_target().join("release/ringfence");
    let error = Command::new(&program)
        .arg("agent")
        .arg("--config")
        .arg(&config)
        .args(&args.arguments)
        .exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
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
         unix = \"agent.sock\"\n",
        cgroup.display()
    )
}
