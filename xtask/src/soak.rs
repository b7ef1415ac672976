//! `cargo xtask soak`: builds everything and lets traffic run for long while policy, agent and controller come
//! and go.
//!
//! The soak itself is a program of the crate `tests`: it uses what the root tests use.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{build, process, setup, system, workspace};

#[derive(clap::Args)]
pub struct Args {
    /// How long
    #[arg(long, default_value_t = 30)]
    minutes: u32,
    /// Build without optimisation
    #[arg(long)]
    debug: bool,
}

pub fn run(args: &Args) -> Result<()> {
    if !system::is_root() {
        bail!(
            "the soak loads programs into the kernel and makes cgroups and namespaces: \
             `sudo -E env \"PATH=$PATH\" cargo xtask soak`"
        );
    }
    setup::test_programs()?;
    build::run(&build::Args {
        debug: args.debug,
        ebpf_only: false,
    })?;
    let mut cargo = process::host_cargo();
    let _ = cargo.args(["build", "--quiet", "--package=ringfence-tests", "--bins"]);
    if !args.debug {
        let _ = cargo.arg("--release");
    }
    process::run(&mut cargo)?;
    let profile = if args.debug { "debug" } else { "release" };
    let programs = workspace::host_target().join(profile);
    let soak = programs.join("ringfence-soak");
    let status = Command::new(&soak)
        .arg(args.minutes.to_string())
        .env("RINGFENCE_BIN_DIR", &programs)
        .status()
        .with_context(|| format!("cannot run {}", soak.display()))?;
    if !status.success() {
        bail!("something was wrong, see above");
    }
    Ok(())
}
