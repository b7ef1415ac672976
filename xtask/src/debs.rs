//! Debian packages that are unpacked below `target/` and installed nowhere: no service starts, nothing of the
//! system changes.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

const LIMIT: Duration = Duration::from_secs(10 * 60);

/// Unpacks what is missing; `packages` are pairs of a package and a program of it. The answer are the variables with
/// which a process finds them. What can't be had is said, and left out by whoever needs it.
pub fn provide(packages: &[(&str, &str)]) -> Result<Vec<(&'static str, OsString)>> {
    let root = workspace::tools().join("debs");
    let programs = ["usr/sbin", "usr/bin"].map(|dir| root.join(dir));
    let here = |name: &str| {
        process::find_program(name).is_some() || programs.iter().any(|dir| dir.join(name).exists())
    };
    let missing: Vec<&str> = packages
        .iter()
        .filter(|(_, program)| !here(program))
        .map(|(package, _)| *package)
        .collect();
    if !missing.is_empty() {
        println!("packages  unpacking {}", missing.join(" "));
        if let Err(error) = with_dependencies(&missing).and_then(|all| unpack(&all, &root)) {
            println!("packages  not to be had: {error:#}");
        }
    }
    let libraries = ["lib", "usr/lib"].map(|dir| root.join(dir).join(multiarch()));
    Ok(vec![
        ("PATH", extended("PATH", &programs)?),
        ("LD_LIBRARY_PATH", extended("LD_LIBRARY_PATH", &libraries)?),
    ])
}

/// Downloads packages and unpacks them into `root`.
pub fn unpack(packages: &[String], root: &Path) -> Result<()> {
    let archive = workspace::target().join("debs");
    fs::create_dir_all(&archive)?;
    fs::create_dir_all(root)?;
    let log = workspace::tools().join("apt.log");
    for package in packages {
        let name = package.split(':').next().unwrap_or_default();
        if file_of(&archive, name).is_none() {
            let mut download = Command::new("apt-get");
            let _ = download.current_dir(&archive).args(["download", package]);
            process::run_logged(&mut download, &log, LIMIT)?;
        }
        let file = file_of(&archive, name)
            .with_context(|| format!("apt-get left no file of {package}"))?;
        let mut unpack = Command::new("dpkg-deb");
        let _ = unpack.arg("--extract").arg(&file).arg(root);
        process::run_logged(&mut unpack, &log, LIMIT)?;
    }
    Ok(())
}

/// The packages that apt would install for `packages`, from lists that are brought up to date where there are none.
fn with_dependencies(packages: &[&str]) -> Result<Vec<String>> {
    if process::find_program("apt-get").is_none() || process::find_program("dpkg-deb").is_none() {
        bail!("there is no apt-get here: install them with your package manager");
    }
    let list = || {
        let mut simulate = Command::new("apt-get");
        let _ = simulate
            .args(["install", "--simulate", "--no-install-recommends"])
            .args(packages);
        process::output(&mut simulate)
    };
    let text = list().or_else(|_| {
        update()?;
        list()
    })?;
    let names = text.lines().filter_map(|line| {
        let name = line.strip_prefix("Inst ")?.split(' ').next()?;
        Some(name.to_owned())
    });
    Ok(names.collect())
}

/// Brings apt's lists up to date.
pub fn update() -> Result<()> {
    let mut update = Command::new("apt-get");
    let _ = update.arg("update");
    process::run_logged(&mut update, &workspace::tools().join("apt.log"), LIMIT)
}

fn file_of(archive: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(archive).ok()?.flatten();
    entries
        .filter(|entry| {
            let file = entry.file_name();
            let file = file.to_string_lossy();
            file.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('_'))
                && file.ends_with(".deb")
        })
        .map(|entry| entry.path())
        .next()
}

/// Debian's name of this architecture's libraries.
pub fn multiarch() -> String {
    format!("{}-linux-gnu", env::consts::ARCH)
}

/// A search path of this process with more directories at its end.
fn extended(variable: &str, dirs: &[PathBuf]) -> Result<OsString> {
    let old = env::var_os(variable).unwrap_or_default();
    let old = env::split_paths(&old).filter(|dir| !dir.as_os_str().is_empty());
    Ok(env::join_paths(old.chain(dirs.iter().cloned()))?)
}
