//! `cargo xtask demo`: builds everything and shows a policy allow, block and revoke on this machine.
//!
//! The demo itself is a program of the crate `tests`: it uses what the root tests use.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{build, process, setup, system, workspace};

#[derive(clap::Args)]
pub struct Args {
    /// Build without optimisation
    #[arg(long)]
    debug: bool,
}

pub fn run(args: &Args) -> Result<()> {
    if !system::is_root() {
        bail!(
            "the demo loads programs into the kernel and makes cgroups and namespaces: \
             `sudo -E env \"PATH=$PATH\" cargo xtask demo`"
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
    let demo = programs.join("ringfence-demo");
    let status = Command::new(&demo)
        .env("RINGFENCE_BIN_DIR", &programs)
        .status()
        .with_context(|| format!("cannot run {}", demo.display()))?;
    if !status.success() {
        bail!("the demo did not show what it should, see above");
    }
    Ok(())
}
