//! `cargo xtask vm`: the root tests on another kernel in qemu, without a disk and without acceleration. The kernel is
//! that of the Debian it runs on: Linux 6.1 on Debian 12.
//!
//! The image is a file system in memory: the tests, the agent, the programs that tests call with their libraries, and
//! some modules of that kernel. Results come by the serial console.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{build, process, setup, system, workspace};

mod image;
mod kernel;

/// What runs unless something else is named: loading, attaching, and that traffic is judged.
const TESTS: [&str; 8] = [
    "programs_keep_within",
    "tcp::",
    "udp::",
    "revoke::",
    "expiry::",
    "rules::",
    "connected",
    "unseen::",
];

/// Where tests stand that can't run there, with the reason.
const SKIPS: &str = "tests/vm-skips.txt";
/// Begins the last line of the console.
const END: &str = "ringfence-vm ends: ";

#[derive(clap::Args)]
pub struct Args {
    /// Parts of names of tests; without any, those of loading and of traffic over TCP and UDP
    tests: Vec<String>,
    /// Every root test that can run there
    #[arg(long, conflicts_with = "tests")]
    all: bool,
    /// Take kernel programs, agent and controller as they were built last
    #[arg(long)]
    built: bool,
    /// Processors of the machine
    #[arg(long, default_value_t = 2)]
    processors: u32,
    /// Time limit of the whole run, minutes
    #[arg(long, default_value_t = 60)]
    minutes: u64,
}

pub fn run(args: &Args) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!(
            "the machine is made for x86_64 only; run the root tests on this kernel: `cargo xtask test`"
        );
    }
    setup::test_programs()?;
    let qemu = qemu()?;
    let kernel = kernel::provide()?;
    let suites = programs(args.built)?;
    let skips = skips()?;
    for (name, reason) in &skips {
        println!("left out: {name}: {reason}");
    }
    let script = script(args, &suites, &skips);
    let initrd = image::build(&kernel, &suites, &script)?;
    let memory = fs::metadata(&initrd)?.len() / (1 << 20) * 2 + 1_200;
    println!("kernel   {}", kernel.version);
    let mut machine = Command::new(qemu);
    let _ = machine
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-nographic",
            "-no-reboot",
            "-nic",
            "none",
        ])
        .args([
            "-smp",
            &args.processors.to_string(),
            "-m",
            &memory.to_string(),
        ])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(&initrd)
        .args(["-append", "console=ttyS0 quiet panic=-1 lsm=capability,bpf"]);
    watch(machine, Duration::from_secs(60 * args.minutes))
}

/// Follows the console to its end.
fn watch(machine: Command, limit: Duration) -> Result<()> {
    let log = workspace::target().join("vm/console.log");
    let _old = fs::remove_file(&log);
    let file = fs::File::create(&log)?;
    let mut machine = machine;
    let mut child = machine
        .stdin(std::process::Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .context("cannot run qemu")?;
    let deadline = Instant::now() + limit;
    let mut shown = 0;
    let ended = loop {
        let ended = child.try_wait()?;
        let bytes = fs::read(&log)?;
        let text = String::from_utf8_lossy(&bytes);
        // Only whole lines.
        let lines: Vec<&str> = text
            .split_inclusive('\n')
            .filter(|it| it.ends_with('\n'))
            .collect();
        for line in lines.iter().skip(shown) {
            println!("{}", line.trim_end());
        }
        shown = lines.len();
        if let Some(status) = ended {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            let _ = child.wait()?;
            let minutes = limit.as_secs() / 60;
            bail!(
                "the run was not over after {minutes} minutes (--minutes); what it said: {}",
                log.display()
            );
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let text = fs::read(&log)?;
    let text = String::from_utf8_lossy(&text);
    match text
        .lines()
        .rev()
        .find_map(|line| line.trim().strip_prefix(END))
    {
        Some("passed") => Ok(()),
        Some(other) => bail!("{other}; what it said: {}", log.display()),
        None => bail!(
            "the machine ended ({ended}) without a result; what it said: {}",
            log.display()
        ),
    }
}

/// qemu, installed if it is not there.
fn qemu() -> Result<PathBuf> {
    let name = "qemu-system-x86_64";
    if let Some(path) = process::find_program(name) {
        return Ok(path);
    }
    println!("packages  installing qemu-system-x86");
    system::apt_install(&["qemu-system-x86"])
        .context("the machine needs qemu-system-x86: install it with your package manager")?;
    process::find_program(name).with_context(|| format!("{name} is still not there"))
}

/// Builds what runs in it; the tests by the name of their suite.
fn programs(built: bool) -> Result<BTreeMap<String, PathBuf>> {
    if !built {
        build::run(&build::Args {
            // Without optimisation the agent would be as slow there as a test is patient.
            debug: false,
            ebpf_only: false,
        })?;
    }
    let mut cargo = process::host_cargo();
    let _ = cargo.env("CARGO_TERM_COLOR", "never").args([
        "test",
        "--no-run",
        "--package=ringfence-tests",
        "--tests",
    ]);
    let output = cargo.output().context("cannot run cargo")?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("the tests don't build:\n{text}");
    }
    let suites = text.lines().filter_map(|line| {
        let (source, path) = line.trim().strip_prefix("Executable ")?.split_once(" (")?;
        let name = source
            .strip_prefix("tests/")?
            .trim_end_matches("/main.rs")
            .trim_end_matches(".rs");
        Some((
            name.to_owned(),
            workspace::root().join(path.trim_end_matches(')')),
        ))
    });
    Ok(suites.collect())
}

/// What the image does first and last.
fn script(args: &Args, suites: &BTreeMap<String, PathBuf>, skips: &[(String, String)]) -> String {
    let wanted = match (args.all, args.tests.is_empty()) {
        (true, _) => String::new(),
        (false, true) => TESTS.join(" "),
        (false, false) => args.tests.join(" "),
    };
    let skipped: Vec<&str> = skips
        .iter()
        .flat_map(|(name, _)| ["--skip", name])
        .collect();
    let names: Vec<&str> = suites.keys().map(String::as_str).collect();
    include_str!("vm/init.sh")
        .replace("@SUITES@", &names.join(" "))
        .replace("@WANTED@", &wanted)
        .replace("@SKIPPED@", &skipped.join(" "))
        .replace("@ROOT@", &workspace::root().display().to_string())
        .replace("@END@", END)
}

/// Tests that can't run there: parts of names, and why.
fn skips() -> Result<Vec<(String, String)>> {
    let path = workspace::root().join(SKIPS);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (name, reason) = line
                .split_once(" # ")
                .with_context(|| format!("{SKIPS}: `{line}` has no reason after ` # `"))?;
            Ok((name.trim().to_owned(), reason.trim().to_owned()))
        })
        .collect()
}

/// Whether a directory has something in it.
fn is_filled(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}
