//! `cargo xtask fuzz`: coverage-guided runs of the fuzz targets with libFuzzer.
//!
//! `cargo xtask test` replays the corpus without any of this; here new inputs are looked for. What is found new lies in
//! `target/fuzz/TARGET`; `--keep` adds to the corpus what reaches code that nothing in it reaches.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::{build, process, toolchain, workspace};

/// What the compiler must add for libFuzzer to see which code an input reaches.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Bytes of an input at most.
const LONGEST: &str = "-max_len=16384";

#[derive(clap::Args)]
pub struct Args {
    /// Target, a directory of tests/fuzz/corpus; every one if left out
    target: Option<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Add to the corpus what reaches new code
    #[arg(long)]
    keep: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let corpus = workspace::root().join("tests/fuzz/corpus");
    let mut targets = names(&corpus)?;
    if let Some(wanted) = &args.target {
        if !targets.contains(wanted) {
            bail!("no target {wanted:?}: take one of {}", targets.join(", "));
        }
        targets.retain(|target| target == wanted);
    }
    if process::find_program("c++").is_none() {
        bail!("libFuzzer needs a C++ compiler: install one (Debian: g++)");
    }
    // The agent, whose parsers these are, embeds them.
    build::ebpf(&toolchain::find_or_install()?, process::run)?;
    let host = host()?;
    let directory = workspace::target().join("fuzz");
    let mut cargo = process::host_cargo();
    let _ = cargo
        .args([
            "build",
            "--release",
            "--package=ringfence-fuzz",
            "--features=libfuzzer",
        ])
        .args(["--target", &host])
        .arg("--target-dir")
        .arg(directory.join("build"))
        .env("RUSTFLAGS", COVERAGE)
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true");
    process::run(&mut cargo)?;
    let program = directory
        .join("build")
        .join(host)
        .join("release/ringfence-fuzz");
    for target in targets {
        let found = directory.join(&target);
        fs::create_dir_all(&found)?;
        let kept = corpus.join(&target);
        let mut fuzzer = process::foreign(&program);
        let _ = fuzzer
            .env("RINGFENCE_FUZZ_TARGET", &target)
            .arg(format!("-max_total_time={}", args.seconds))
            .arg(format!(
                "-artifact_prefix={}/{target}-",
                directory.display()
            ))
            .args([LONGEST, "-print_final_stats=1", "-verbosity=1"])
            .args([&found, &kept]);
        println!("fuzz      {target} for {} s", args.seconds);
        process::run(&mut fuzzer).with_context(|| {
            format!(
                "{target}: the input is named above; mend it, and keep the input in {}",
                kept.display()
            )
        })?;
        if args.keep {
            let mut merge = process::foreign(&program);
            let _ = merge
                .env("RINGFENCE_FUZZ_TARGET", &target)
                .args(["-merge=1", LONGEST])
                .args([&kept, &found]);
            process::run(&mut merge)?;
        }
    }
    Ok(())
}

fn names(corpus: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for directory in fs::read_dir(corpus)? {
        names.extend(directory?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// The target triple of this machine: a build for a named target leaves build scripts uninstrumented.
fn host() -> Result<String> {
    let mut rustc = process::foreign("rustc");
    let version = process::output(rustc.arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}
