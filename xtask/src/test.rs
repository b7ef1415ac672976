//! `cargo xtask test`: every check there is, and one line at the end that sums them up.
//!
//! A check that fails does not stop the others. Nothing is skipped in silence: a warning, and a test
//! that was ignored without standing in `tests/allowed-skips.txt`, count as failed.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{build, process, setup, system, toolchain, workspace};
use tally::Tally;

mod abi;
mod tally;

/// The kernel programs build for another target: `build::ebpf_cargo` checks them.
const HOST_CRATES: [&str; 3] = ["--workspace", "--exclude", "ringfence-ebpf"];

#[derive(clap::Args)]
pub struct Args {
    /// Leave out the tests that need root (a real kernel, cgroups, network namespaces)
    #[arg(long)]
    no_root: bool,
    /// Record the current ABI in common/abi.lock, and do nothing else
    #[arg(long)]
    bless_abi: bool,
    /// Record what the kernel programs cost in tests/budget.toml, and do nothing else
    #[arg(long, conflicts_with_all = ["no_root", "bless_abi"])]
    bless_budget: bool,
}

pub fn run(args: &Args) -> Result<()> {
    if args.bless_abi {
        return abi::bless();
    }
    if args.bless_budget {
        return bless_budget();
    }
    if !args.no_root && !system::is_root() {
        bail!(
            "the root tests need root: `sudo -E env \"PATH=$PATH\" cargo xtask test`, or --no-root for the others"
        );
    }
    let toolchain = toolchain::find_or_install()?;
    if !args.no_root {
        setup::test_programs()?;
    }
    let mut tally = Tally::new(&workspace::root().join("tests/allowed-skips.txt"))?;
    tally.cargo("format", host(&["fmt", "--all", "--check"], &[]));
    tally.step("ABI", abi::check());

    let built = build::ebpf(&toolchain, tally::watch);
    tally.step("kernel programs", built);
    let mut clippy = if toolchain.has_clippy() {
        build::ebpf_cargo(&toolchain, "clippy")
    } else {
        println!("the eBPF toolchain has no clippy: the kernel programs are linted for the host");
        let mut cargo = host(&["clippy", "--package=ringfence-ebpf"], &[]);
        let _ = cargo.env("CARGO_PROFILE_DEV_PANIC", "abort");
        cargo
    };
    let _ = clippy.args(["--", "--deny=warnings"]);
    tally.cargo("clippy of the kernel programs", clippy);

    let clippy = ["--all-targets", "--", "--deny=warnings"];
    tally.cargo("clippy", host(&["clippy", "--quiet"], &clippy));
    let mut doc = host(&["doc", "--quiet", "--no-deps"], &[]);
    let _ = doc.env("RUSTDOCFLAGS", "--deny=warnings");
    tally.cargo("documentation", doc);

    let unit = ["--exclude=ringfence-tests", "--no-fail-fast"];
    tally.tests("unit tests", host(&["test"], &unit))?;
    if args.no_root {
        println!("\nroot tests: left out, as --no-root asks");
    } else {
        root_tests(&mut tally)?;
    }
    tally.finish()
}

/// Builds what is measured and lets the test of the budget write down what it finds.
fn bless_budget() -> Result<()> {
    if !system::is_root() {
        bail!(
            "the kernel is asked what it loaded: `sudo -E env \"PATH=$PATH\" cargo xtask test --bless-budget`"
        );
    }
    build::run(&build::Args {
        debug: true,
        ebpf_only: false,
    })?;
    let mut cargo = process::host_cargo();
    let _ = cargo
        .env("RINGFENCE_BIN_DIR", workspace::host_target().join("debug"))
        .env("RINGFENCE_BLESS_BUDGET", "1")
        .args([
            "test",
            "--quiet",
            "--package=ringfence-tests",
            "--test=budget",
        ])
        .args(["figures_keep_within_the_budget", "--", "--exact"]);
    process::run(&mut cargo)?;
    println!("tests/budget.toml: say in the message of the commit why figures rose");
    Ok(())
}

/// Tests on the running kernel, one at a time: they share cgroups, bpffs and the machine's load.
fn root_tests(tally: &mut Tally) -> Result<()> {
    let mut cargo = process::host_cargo();
    let _ = cargo.args([
        "build",
        "--package=ringfence-agent",
        "--package=ringfence-controller",
    ]);
    tally.cargo("programs for the root tests", cargo);
    let mut cargo = process::host_cargo();
    let _ = cargo
        .env("RINGFENCE_BIN_DIR", workspace::host_target().join("debug"))
        .args([
            "test",
            "--package=ringfence-tests",
            "--no-fail-fast",
            "--",
            "--test-threads=1",
        ]);
    tally.tests("root tests", cargo)
}

fn host(subcommand: &[&str], options: &[&str]) -> Command {
    let mut cargo = process::host_cargo();
    let _ = cargo.args(subcommand);
    if !subcommand.contains(&"fmt") && !subcommand.contains(&"--package=ringfence-ebpf") {
        let _ = cargo.args(HOST_CRATES);
    }
    let _ = cargo.args(options);
    cargo
}
