//! Child processes: the environment they get, and what happens to their output.
//!
//! `cargo xtask` runs inside a cargo, which leaves its own variables in the environment. A cargo of
//! the same toolchain must not see those of the package `xtask`; one of another toolchain must not
//! see any of them.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Settings of the user that hold for every cargo: where it keeps and how it fetches packages.
const CARGO_SETTINGS: &[&str] = &[
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
];

/// The cargo that runs this, for the host crates, in the workspace.
pub fn host_cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    let _ = command.current_dir(workspace::root()).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if starts_with_any(&name, &["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"]) {
            let _ = command.env_remove(&name);
        }
    }
    command
}

/// A program of another toolchain: nothing of the running cargo is left in its environment.
pub fn foreign(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let _ = command.current_dir(workspace::root()).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let of_cargo = starts_with_any(&name, &["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS"])
            && !starts_with_any(&name, CARGO_SETTINGS);
        if of_cargo || name == "RUSTUP_TOOLCHAIN" || name == "LD_LIBRARY_PATH" {
            let _ = command.env_remove(&name);
        }
    }
    command
}

/// Runs to the end; its output is the user's.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_run(command))?;
    if !status.success() {
        bail!("`{}` failed: {status}", describe(command));
    }
    Ok(())
}

/// Runs to the end and returns what it wrote to its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| cannot_run(command))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}", describe(command), errors.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs for `limit` at most, output into `log`; an error holds the last lines of the log.
pub fn run_logged(command: &mut Command, log: &Path, limit: Duration) -> Result<()> {
    if let Some(parent) = log.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| cannot_run(command))?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            if status.success() {
                return Ok(());
            }
            bail!("`{}` failed: {status}\n{}", describe(command), tail(log));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            let _ = child.wait()?;
            bail!(
                "`{}` took longer than {limit:?}\n{}",
                describe(command),
                tail(log)
            );
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Runs to the end, hands each line of both outputs to `see` and passes it on to the user.
pub fn observe(command: &mut Command, mut see: impl FnMut(&str)) -> Result<ExitStatus> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| cannot_run(command))?;
    let (sender, lines) = mpsc::channel();
    let readers = [
        child.stdout.take().map(|out| forward(out, sender.clone())),
        child.stderr.take().map(|err| forward(err, sender)),
    ];
    for line in lines {
        println!("{line}");
        see(&line);
    }
    drop(readers);
    Ok(child.wait()?)
}

/// The file that the shell would run as `name`; also looks where users' paths often do not.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

fn forward(from: impl Read + Send + 'static, to: mpsc::Sender<String>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            if to
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                return;
            }
        }
    })
}

fn starts_with_any(name: &OsStr, prefixes: &[&str]) -> bool {
    let name = name.to_string_lossy();
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

fn cannot_run(command: &Command) -> String {
    format!("cannot run `{}`", describe(command))
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let last = lines.iter().skip(lines.len().saturating_sub(8));
    let last: Vec<_> = last.map(|line| format!("    {line}")).collect();
    format!("{}\n    (all of it: {})", last.join("\n"), log.display())
}
