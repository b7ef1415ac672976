//! `cargo xtask build`: the kernel programs, then the agent that embeds them, and the controller.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    process,
    toolchain::{self, Toolchain},
    workspace,
};

/// Separates flags in `CARGO_ENCODED_RUSTFLAGS`.
const FLAG_SEPARATOR: &str = "\u{1f}";

#[derive(clap::Args)]
pub struct Args {
    /// Build the host programs without optimisation (the kernel programs always have it)
    #[arg(long)]
    pub debug: bool,
    /// Build the kernel programs only
    #[arg(long)]
    pub ebpf_only: bool,
}

pub fn run(args: &Args) -> Result<()> {
    ebpf(&toolchain::find_or_install()?, process::run)?;
    if args.ebpf_only {
        return Ok(());
    }
    host(args.debug)
}

/// Builds the kernel programs into `target/bpf/ringfence.o`, which is left alone if it would not
/// change; `run` runs the compiler.
pub fn ebpf(toolchain: &Toolchain, run: impl FnOnce(&mut Command) -> Result<()>) -> Result<()> {
    run(&mut ebpf_cargo(toolchain, "build"))?;
    let object = target_dir().join(target()).join("release/ringfence-ebpf");
    install(&object, &workspace::bpf_object())
}

/// A cargo command on the kernel programs, for the target they run on.
pub fn ebpf_cargo(toolchain: &Toolchain, subcommand: &str) -> Command {
    let mut cargo = toolchain.cargo();
    let arch = format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH);
    let flags = [
        arch.as_str(),
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        // It would make a call, with a loop over bytes and a stack frame, of every few bytes that are zeroed.
        "-Clink-arg=--disable-expand-memcpy-in-order",
    ];
    let _ = cargo
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(FLAG_SEPARATOR))
        .args([
            subcommand,
            "--quiet",
            "--release",
            "--package=ringfence-ebpf",
            "-Zbuild-std=core",
        ])
        .args(["--target", target()])
        .arg("--target-dir")
        .arg(target_dir());
    cargo
}

/// Apart from the host crates', so that neither waits for the other's lock.
fn target_dir() -> PathBuf {
    workspace::target().join("bpf-build")
}

fn host(debug: bool) -> Result<()> {
    let mut cargo = process::host_cargo();
    let _ = cargo.args([
        "build",
        "--package=ringfence-agent",
        "--package=ringfence-controller",
    ]);
    if !debug {
        let _ = cargo.arg("--release");
    }
    process::run(&mut cargo)
}

fn target() -> &'static str {
    if cfg!(target_endian = "little") {
        "bpfel-unknown-none"
    } else {
        "bpfeb-unknown-none"
    }
}

fn install(from: &Path, to: &Path) -> Result<()> {
    let object = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if !object.windows(5).any(|it| it == b".BTF\0") {
        bail!("{} holds no BTF: the linker ignored --btf", from.display());
    }
    if fs::read(to).is_ok_and(|present| present == object) {
        return Ok(());
    }
    let dir = to.parent().context("the object has no directory")?;
    let new = to.with_extension("new");
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(&new, &object))
        .and_then(|()| fs::rename(&new, to))
        .with_context(|| format!("cannot write {}", to.display()))
}
