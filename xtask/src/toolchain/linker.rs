//! bpf-linker: one that is there and works, else one built for an LLVM of this system.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{Compiler, number};
use crate::{process, system, workspace};

const VERSION: &str = "0.13.0";
const OLDEST_MINOR: u32 = 13;
/// The newest LLVM that this version has a feature for.
const NEWEST_LLVM: u32 = 23;
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);

/// A linker that reads the bitcode of `compiler`.
pub fn find_or_install(compiler: &Compiler) -> Result<PathBuf> {
    let own = workspace::tools().join("bin/bpf-linker");
    let present = [
        own.is_file().then(|| own.clone()),
        process::find_program("bpf-linker"),
    ];
    if let Some(linker) = present
        .into_iter()
        .flatten()
        .find(|it| check(it, compiler).is_ok())
    {
        return Ok(linker);
    }
    install(compiler)?;
    check(&own, compiler)?;
    Ok(own)
}

/// Links the bitcode of an empty crate: works only when both sides have a fitting LLVM.
fn check(linker: &Path, compiler: &Compiler) -> Result<()> {
    let version = process::output(process::foreign(linker).arg("--version"))?;
    let minor = version
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|it| number(it, 1));
    if minor.is_none_or(|minor| minor < OLDEST_MINOR) {
        bail!("{} is older than 0.{OLDEST_MINOR}", linker.display());
    }
    let dir = workspace::tools().join("probe");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let [source, bitcode, object] = ["probe.rs", "probe.bc", "probe.o"].map(|it| dir.join(it));
    fs::write(&source, "#![feature(no_core)]\n#![no_core]\n")?;
    let mut compile = process::foreign(compiler.sysroot.join("bin/rustc"));
    let _ = compile
        .env("RUSTC_BOOTSTRAP", "1")
        .args([
            "--target=bpfel-unknown-none",
            "--crate-type=lib",
            "--emit=llvm-bc",
            "-o",
        ])
        .args([&bitcode, &source]);
    let _ = process::output(&mut compile)?;
    let mut link = process::foreign(linker);
    let _ = process::output(link.args(["--emit", "obj", "-o"]).args([&object, &bitcode]))?;
    Ok(())
}

/// Builds bpf-linker into the checkout's own tools.
fn install(compiler: &Compiler) -> Result<()> {
    let (llvm, bin) = llvm(compiler.llvm_major)?;
    println!("linker    building bpf-linker {VERSION} for LLVM {llvm} (some minutes)");
    let mut path = OsString::from(bin);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut cargo = process::foreign("cargo");
    let _ = cargo
        .env("PATH", path)
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--force",
            "--no-default-features",
        ])
        .arg(format!("--features=llvm-{llvm}"))
        .arg("--root")
        .arg(workspace::tools())
        .arg("--target-dir")
        .arg(workspace::tools().join("build"));
    process::run_logged(
        &mut cargo,
        &workspace::tools().join("bpf-linker.log"),
        BUILD_LIMIT,
    )
}

/// An LLVM not older than the compiler's: its major version and the directory of `llvm-config`.
fn llvm(oldest: u32) -> Result<(u32, PathBuf)> {
    if let Some(found) = llvm_present(oldest) {
        return Ok(found);
    }
    let package = format!("llvm-{oldest}-dev");
    system::apt_install(&[&package])
        .with_context(|| format!("bpf-linker needs the development files of LLVM {oldest}"))?;
    llvm_present(oldest).with_context(|| format!("{package} brought no llvm-config"))
}

fn llvm_present(oldest: u32) -> Option<(u32, PathBuf)> {
    let debian = (oldest..=NEWEST_LLVM).map(|major| format!("/usr/lib/llvm-{major}/bin").into());
    let in_path =
        process::find_program("llvm-config").and_then(|config| config.parent().map(Path::to_owned));
    debian.chain(in_path).find_map(|bin: PathBuf| {
        let mut config = process::foreign(bin.join("llvm-config"));
        let version = process::output(config.arg("--version")).ok()?;
        let major = number(&version, 0)?;
        // `llvm-config` is in the runtime package too; the headers are not.
        let include =
            process::output(process::foreign(bin.join("llvm-config")).arg("--includedir"));
        let headers = Path::new(include.ok()?.trim())
            .join("llvm-c/Core.h")
            .is_file();
        (headers && (oldest..=NEWEST_LLVM).contains(&major)).then_some((major, bin))
    })
}
