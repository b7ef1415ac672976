//! The file system of the machine: what tests call, and its libraries, as an archive that the kernel unpacks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::kernel::Kernel;
use crate::{process, workspace};

/// Programs of the system that tests call besides those of busybox.
const PROGRAMS: [&str; 6] = ["ip", "tc", "unshare", "nsenter", "setpriv", "bpftool"];
/// Files of the checkout that tests read.
const FILES: [&str; 6] = [
    "docs",
    "config",
    "tests/budget.toml",
    "tests/allowed-skips.txt",
    "target/bpf/ringfence.o",
    "README.md",
];
const PASSWD: &str =
    "root:x:0:0::/root:/bin/sh\ndaemon:x:1:1::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n";

/// Builds it; the answer is the archive.
pub fn build(kernel: &Kernel, suites: &BTreeMap<String, PathBuf>, init: &str) -> Result<PathBuf> {
    let vm = workspace::target().join("vm");
    let root = vm.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for dir in ["bin", "sbin", "usr/bin", "usr/sbin", "etc", "programs/deps"] {
        fs::create_dir_all(root.join(dir))?;
    }
    let busybox = process::find_program("busybox").context(
        "there is no busybox, which is most of the machine: install the package busybox-static",
    )?;
    let _bytes = fs::copy(busybox, root.join("bin/busybox"))?;
    symlink("busybox", root.join("bin/sh"))?;
    symlink("/bin/busybox", root.join("sbin/modprobe"))?;
    fs::write(root.join("etc/passwd"), PASSWD)?;
    fs::write(root.join("etc/group"), GROUP)?;
    fs::write(root.join("init"), init)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;

    let mut libraries = BTreeSet::new();
    let mut add = |from: &Path, to: PathBuf| -> Result<()> {
        libraries.extend(needed(from)?);
        strip(from, &to)
    };
    for (name, path) in suites {
        add(path, root.join("programs/deps").join(name))?;
    }
    let target = workspace::host_target();
    for name in ["ringfence", "ringfence-controller"] {
        add(
            &target.join("release").join(name),
            root.join("programs").join(name),
        )?;
    }
    for name in ["ringfence-traffic", "ringfence-probe"] {
        add(
            &target.join("debug").join(name),
            root.join("programs").join(name),
        )?;
    }
    for path in PROGRAMS
        .iter()
        .filter_map(|name| process::find_program(name))
    {
        add(
            &path,
            root.join("usr/sbin")
                .join(path.file_name().unwrap_or_default()),
        )?;
    }
    for library in libraries {
        let to = root.join(library.strip_prefix("/")?);
        fs::create_dir_all(to.parent().context("a library without a directory")?)?;
        let _bytes =
            fs::copy(&library, to).with_context(|| format!("cannot copy {}", library.display()))?;
    }
    for file in FILES {
        let from = workspace::root().join(file);
        let to = root.join(from.strip_prefix("/")?);
        fs::create_dir_all(to.parent().context("a file without a directory")?)?;
        let mut copy = Command::new("cp");
        let _ = copy.args(["-r"]).arg(&from).arg(&to);
        process::run(&mut copy)?;
    }
    // Tests start in it.
    fs::create_dir_all(root.join(workspace::root().join("tests").strip_prefix("/")?))?;
    let modules = kernel.copy_modules(&root)?;
    fs::write(root.join("modules"), modules.join("\n") + "\n")?;

    let archive = vm.join("initrd");
    let mut pack = Command::new("busybox");
    let _ = pack
        .args([
            "sh",
            "-c",
            "cd \"$0\" && busybox find . | busybox cpio -o -H newc >\"$1\" 2>/dev/null",
        ])
        .arg(&root)
        .arg(&archive);
    process::run(&mut pack)?;
    Ok(archive)
}

/// The shared libraries of a program, and its loader; none of a static one.
fn needed(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let paths = text.lines().filter_map(|line| {
        let words = line.split_ascii_whitespace();
        words
            .into_iter()
            .find(|word| word.starts_with('/'))
            .map(PathBuf::from)
    });
    Ok(paths.collect())
}

/// A copy without symbols: they would only fill the machine's memory.
fn strip(from: &Path, to: &Path) -> Result<()> {
    let mut strip = Command::new("strip");
    let _ = strip.arg("--strip-all").arg("-o").arg(to).arg(from);
    process::run(&mut strip)
}
