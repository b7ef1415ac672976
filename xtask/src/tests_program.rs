//! Programs of the crate `tests` that people run: built with all that they use, then started.

use std::{ffi::OsString, process::Command};

use anyhow::{Context, Result};

use crate::{build, process, setup, workspace};

/// Builds everything and runs one of them; returns whether it ended well.
pub fn run(name: &str, arguments: &[&str], debug: bool) -> Result<bool> {
    run_with(name, arguments, debug, &[])
}

/// The same with more environment.
pub fn run_with(
    name: &str,
    arguments: &[&str],
    debug: bool,
    variables: &[(&str, OsString)],
) -> Result<bool> {
    setup::test_programs()?;
    build(debug)?;
    let profile = if debug { "debug" } else { "release" };
    let programs = workspace::host_target().join(profile);
    let program = programs.join(name);
    let status = Command::new(&program)
        .args(arguments)
        .env("RINGFENCE_BIN_DIR", &programs)
        .envs(variables.iter().map(|(name, value)| (*name, value)))
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    Ok(status.success())
}

/// Builds everything.
pub fn build(debug: bool) -> Result<()> {
    build::run(&build::Args {
        debug,
        ebpf_only: false,
    })?;
    let mut cargo = process::host_cargo();
    let _ = cargo.args(["build", "--quiet", "--package=ringfence-tests", "--bins"]);
    if !debug {
        let _ = cargo.arg("--release");
    }
    process::run(&mut cargo)
}
