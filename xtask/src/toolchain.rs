//! The eBPF toolchain: a compiler with the source of `core`, and a bpf-linker that reads its bitcode.
//!
//! Sources, in order: a rustup toolchain with `rust-src`; the same after `rustup component add`;
//! Debian's packages. What was taken is remembered in a stamp and believed while its files are the
//! same. Compilers that are not nightlies are told `RUSTC_BOOTSTRAP=1`, because of `-Zbuild-std`.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{process, system, workspace};

mod linker;

/// Debian's matching pair of compiler and source, its clippy, and the LLVM for bpf-linker.
const DEBIAN_PACKAGES: &[&str] = &[
    "rustc-web",
    "rust-web-src",
    "cargo-web",
    "rust-web-clippy",
    "llvm-22-dev",
];

/// The oldest compiler that builds the workspace (`rust-version` in the root manifest).
const OLDEST_MINOR: u32 = 90;

const COMPONENT_LIMIT: Duration = Duration::from_secs(120);

/// A compiler, not yet with a linker.
struct Compiler {
    name: String,
    /// The directory that holds `bin/rustc` and `lib/rustlib`.
    sysroot: PathBuf,
    llvm_major: u32,
}

/// What builds the kernel programs.
pub struct Toolchain {
    /// For people: which one it is.
    pub name: String,
    /// The directory that holds `bin/rustc` and `lib/rustlib`.
    sysroot: PathBuf,
    /// The bpf-linker.
    pub linker: PathBuf,
}

impl Toolchain {
    /// This toolchain's cargo, in an environment that holds no other.
    pub fn cargo(&self) -> Command {
        let bin = self.sysroot.join("bin");
        let mut command = process::foreign(bin.join("cargo"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(bin.clone()).chain(std::env::split_paths(&path));
        if let Ok(path) = std::env::join_paths(path) {
            // `cargo clippy` looks for its driver beside the cargo it finds in the path.
            let _ = command.env("PATH", path);
        }
        let _ = command
            .env("RUSTC", bin.join("rustc"))
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker)
            .env("CARGO_TARGET_BPFEB_UNKNOWN_NONE_LINKER", &self.linker);
        command
    }

    /// Whether it has a clippy.
    pub fn has_clippy(&self) -> bool {
        self.sysroot.join("bin/cargo-clippy").is_file()
    }
}

/// The toolchain of the last time if it is still there, else the first that can be had.
pub fn find_or_install() -> Result<Toolchain> {
    if let Some(toolchain) = read_stamp() {
        return Ok(toolchain);
    }
    let mut reasons = Vec::new();
    let sources: [fn() -> Result<Compiler>; 3] = [rustup_present, rustup_component, debian];
    for source in sources {
        let found = source().and_then(|compiler| {
            let linker = linker::find_or_install(&compiler)?;
            Ok(Toolchain {
                name: compiler.name,
                sysroot: compiler.sysroot,
                linker,
            })
        });
        match found {
            Ok(toolchain) => {
                write_stamp(&toolchain)?;
                return Ok(toolchain);
            }
            Err(error) => reasons.push(format!("  - {error:#}")),
        }
    }
    reasons.dedup();
    bail!(
        "no toolchain for eBPF can be had here:\n{}\nRemedy: `rustup toolchain install nightly \
         --component rust-src` and a bpf-linker >= 0.13 in the path \
         (https://github.com/aya-rs/bpf-linker), or, on Debian 12, `cargo xtask setup` as root.",
        reasons.join("\n")
    )
}

/// A rustup toolchain that has the source already; nightlies first.
fn rustup_present() -> Result<Compiler> {
    rustup_toolchains()?
        .into_iter()
        .find_map(|(name, sysroot)| inspect(&name, &sysroot).ok())
        .context("no rustup toolchain has the component rust-src")
}

/// A rustup toolchain that gets the source now: the newest nightly, else the first one listed.
fn rustup_component() -> Result<Compiler> {
    let toolchains = rustup_toolchains()?;
    let Some((name, sysroot)) = toolchains.first() else {
        bail!("rustup has no toolchain");
    };
    let mut add = process::foreign("rustup");
    let _ = add.args(["component", "add", "rust-src", "--toolchain", name]);
    process::run_logged(
        &mut add,
        &workspace::tools().join("rustup.log"),
        COMPONENT_LIMIT,
    )
    .ok()
    .with_context(|| {
        format!("`rustup component add rust-src --toolchain {name}` failed (offline?)")
    })?;
    inspect(name, sysroot)
}

/// Debian's packages, installed if need be.
fn debian() -> Result<Compiler> {
    let usr = Path::new("/usr");
    if let Ok(compiler) = inspect("Debian", usr) {
        return Ok(compiler);
    }
    if process::find_program("apt-get").is_some() && system::is_root() {
        println!("compiler  installing {}", DEBIAN_PACKAGES.join(" "));
    }
    system::apt_install(DEBIAN_PACKAGES).context("Debian's packages")?;
    inspect("Debian", usr)
}

fn rustup_toolchains() -> Result<Vec<(String, PathBuf)>> {
    let mut list = process::foreign("rustup");
    let _ = list.args(["toolchain", "list", "--verbose"]);
    let list = process::output(&mut list)
        .ok()
        .context("there is no rustup here")?;
    let mut toolchains: Vec<_> = list
        .lines()
        .filter_map(|line| {
            let name = line.split_ascii_whitespace().next()?;
            let sysroot = line.get(line.find('/')?..)?;
            Some((name.to_owned(), PathBuf::from(sysroot)))
        })
        .collect();
    toolchains.sort_by_key(|(name, _)| !name.starts_with("nightly"));
    Ok(toolchains)
}

/// Checks that a sysroot has a compiler, new enough, and the source of `core`.
fn inspect(name: &str, sysroot: &Path) -> Result<Compiler> {
    if !source(sysroot).is_file() {
        bail!("{name} has no source of core");
    }
    let mut version = process::foreign(sysroot.join("bin/rustc"));
    let version = process::output(version.arg("-vV"))?;
    let field = |key: &str| version.lines().find_map(|line| line.strip_prefix(key));
    let release = field("release: ").context("rustc -vV names no release")?;
    let minor: u32 = number(release, 1).context("rustc -vV names no release")?;
    if minor < OLDEST_MINOR {
        bail!("{name} is Rust {release}; 1.{OLDEST_MINOR} or newer is needed");
    }
    let llvm_major = field("LLVM version: ")
        .and_then(|llvm| number(llvm, 0))
        .context("rustc -vV names no LLVM")?;
    Ok(Compiler {
        name: format!("{name}, Rust {release}, LLVM {llvm_major}"),
        sysroot: sysroot.to_owned(),
        llvm_major,
    })
}

fn source(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs")
}

/// The `index`th part of a version such as `1.97.0-nightly`.
fn number(version: &str, index: usize) -> Option<u32> {
    version.split(['.', '-']).nth(index)?.parse().ok()
}

fn stamp_path() -> PathBuf {
    workspace::tools().join("toolchain.stamp")
}

fn read_stamp() -> Option<Toolchain> {
    let text = fs::read_to_string(stamp_path()).ok()?;
    let mut lines = text.lines();
    let toolchain = Toolchain {
        name: lines.next()?.to_owned(),
        sysroot: lines.next()?.into(),
        linker: lines.next()?.into(),
    };
    (lines.next()? == fingerprint(&toolchain)?).then_some(toolchain)
}

fn write_stamp(toolchain: &Toolchain) -> Result<()> {
    let fingerprint = fingerprint(toolchain).context("the toolchain vanished")?;
    let Toolchain {
        name,
        sysroot,
        linker,
    } = toolchain;
    let (sysroot, linker) = (sysroot.display(), linker.display());
    let stamp = stamp_path();
    fs::create_dir_all(workspace::tools())
        .and_then(|()| {
            fs::write(
                &stamp,
                format!("{name}\n{sysroot}\n{linker}\n{fingerprint}\n"),
            )
        })
        .with_context(|| format!("cannot write {}", stamp.display()))
}

/// Size and time of every file a build depends on; none if one of them is gone.
fn fingerprint(toolchain: &Toolchain) -> Option<String> {
    let bin = toolchain.sysroot.join("bin");
    let source = source(&toolchain.sysroot);
    let files = [
        bin.join("rustc"),
        bin.join("cargo"),
        source,
        toolchain.linker.clone(),
    ];
    let marks: Option<Vec<_>> = files
        .iter()
        .map(|file| {
            fs::metadata(file)
                .ok()
                .map(|it| format!("{}@{}", it.len(), it.mtime()))
        })
        .collect();
    Some(marks?.join(" "))
}
