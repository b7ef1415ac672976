//! `cargo xtask bench`: builds with optimisation, measures, and writes docs/benchmarks.md.
//!
//! Only a full run writes without being asked to: a part, or a short run, would take the place of its figures.
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
    /// Where to write all figures (target/bench.json of a full run, nowhere of others)
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
    let json = args.figures();
    let mut arguments = vec!["measure".into(), "--commit".into(), commit()];
    if let Some(json) = &json {
        arguments.extend(["--json".into(), json.display().to_string()]);
    }
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
    let Some(json) = json else {
        return Ok(());
    };
    println!("figures  {}", json.display());
    if args.is_full() {
        render(&json)
    } else {
        Ok(())
    }
}

impl Args {
    /// Whether everything is measured in its long form.
    const fn is_full(&self) -> bool {
        !self.quick && self.only.is_none()
    }

    /// The file of all figures, if there shall be one.
    fn figures(&self) -> Option<PathBuf> {
        let of_full = || workspace::target().join("bench.json");
        self.json.clone().or_else(|| self.is_full().then(of_full))
    }
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::{Cli, Command};

    fn figures(arguments: &[&str]) -> Option<String> {
        let words = ["xtask", "bench"].iter().chain(arguments);
        let Ok(Command::Bench(args)) = Cli::try_parse_from(words).map(|cli| cli.command) else {
            return Some("not understood".to_owned());
        };
        let path = args.figures()?;
        Some(path.file_name()?.to_string_lossy().into_owned())
    }

    #[test]
    fn only_a_full_run_writes_figures_unasked() {
        assert_eq!(figures(&["--rounds", "9"]).as_deref(), Some("bench.json"));
        assert_eq!(figures(&["--quick"]), None);
        assert_eq!(figures(&["--only", "crr"]), None);
        let asked = figures(&["--quick", "--json", "short.json"]);
        assert_eq!(asked.as_deref(), Some("short.json"));
    }
}
