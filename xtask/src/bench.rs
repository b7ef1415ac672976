//! `cargo xtask bench`: builds with optimisation, measures, and writes docs/benchmarks.md.
//!
//! The bench itself is a program of the crate `tests`: it uses what the root tests use. What it compares with
//! (nftables, nginx, redis and their clients) is fetched for it and installed nowhere.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Result, bail};

use crate::{debs, process, system, tests_program, workspace};

/// Debian's packages of what the bench compares with, and a program of each.
const PACKAGES: [(&str, &str); 5] = [
    ("nftables", "nft"),
    ("wrk", "wrk"),
    ("nginx-light", "nginx"),
    ("redis-server", "redis-server"),
    ("redis-tools", "redis-benchmark"),
];

#[derive(clap::Args)]
pub struct Args {
    /// Every kind of measurement in short form, in less than five minutes; prints only
    #[arg(long)]
    quick: bool,
    /// Only these, separated by commas (crr, rr, stream, udp-rr, parallel, accept, http, redis, hooks, load,
    /// changes, scale, flat); prints only
    #[arg(long)]
    only: Option<String>,
    /// Rounds of each scenario
    #[arg(long)]
    rounds: Option<u32>,
    /// Where to write all figures (target/bench.json)
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draw docs/benchmarks.md from a file of figures and measure nothing
    #[arg(long, conflicts_with_all = ["quick", "only", "rounds", "json"])]
    render: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    if let Some(json) = &args.render {
        tests_program::build(false)?;
        return render(json);
    }
    if !system::is_root() {
        bail!(
            "the bench loads programs into the kernel and makes cgroups and namespaces: \
             `sudo -E env \"PATH=$PATH\" cargo xtask bench`"
        );
    }
    let variables = debs::provide(&PACKAGES)?;
    let json = args
        .json
        .clone()
        .unwrap_or_else(|| workspace::target().join("bench.json"));
    let mut arguments = vec![
        "measure".into(),
        "--json".into(),
        json.display().to_string(),
    ];
    arguments.extend(["--commit".into(), commit()]);
    if args.quick {
        arguments.push("--quick".into());
    }
    if let Some(only) = &args.only {
        arguments.extend(["--only".into(), only.clone()]);
    }
    if let Some(rounds) = args.rounds {
        arguments.extend(["--rounds".into(), rounds.to_string()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if !tests_program::run_with("ringfence-bench", &arguments, false, &variables)? {
        bail!("the bench ended early, see above; what it made is removed");
    }
    println!("figures  {}", json.display());
    if args.quick || args.only.is_some() {
        return Ok(());
    }
    render(&json)
}

/// Draws the documents from figures.
fn render(json: &PathBuf) -> Result<()> {
    let docs = workspace::root().join("docs");
    let mut command = Command::new(workspace::host_target().join("release/ringfence-bench"));
    let _ = command
        .arg("render")
        .arg(env::current_dir()?.join(json))
        .arg(&docs);
    process::run(&mut command)?;
    println!("written  {}", docs.join("benchmarks.md").display());
    Ok(())
}

/// The commit that is checked out, and whether the tree differs from it.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        let _ = git.current_dir(workspace::root()).args(arguments);
        process::output(&mut git).unwrap_or_default()
    };
    let head = git(&["rev-parse", "--short=12", "HEAD"]);
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    let suffix = if changed.is_empty() {
        ""
    } else {
        " with changes"
    };
    format!("{}{suffix}", head.trim())
}
