//! The kernel of the Debian that this runs on, downloaded and unpacked below `target/vm`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::is_filled;
use crate::{debs, process, workspace};

/// The package that depends on the newest one.
const META: &str = "linux-image-amd64";

/// Modules that tests, or the agent, ask of the kernel.
pub const MODULES: &[&str] = &[
    "veth",
    "dummy",
    "macvlan",
    "tun",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "raw_diag",
    "unix_diag",
    "sch_ingress",
    "cls_bpf",
    "dccp",
    "dccp_ipv4",
    "dccp_ipv6",
    "vsock",
    "vsock_loopback",
    "bridge",
    "8021q",
    "overlay",
];

/// An unpacked kernel.
pub struct Kernel {
    pub version: String,
    /// What boots.
    pub image: PathBuf,
    /// `/lib/modules/VERSION` of it.
    modules: PathBuf,
}

/// The newest one of this Debian.
pub fn provide() -> Result<Kernel> {
    let root = workspace::target().join("vm/kernel");
    if !is_filled(&root.join("boot")) {
        if process::find_program("apt-get").is_none() {
            bail!(
                "the kernel is Debian's, and there is no apt-get here: unpack a {META} into {}",
                root.display()
            );
        }
        let package = newest().or_else(|_| {
            debs::update()?;
            newest()
        })?;
        println!("packages  unpacking {package}");
        debs::unpack(&[package], &root)?;
    }
    let entries = fs::read_dir(root.join("boot"))?.flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let image = names
        .filter(|name| name.starts_with("vmlinuz-"))
        .max()
        .with_context(|| format!("{} holds no kernel", root.display()))?;
    let version = image.trim_start_matches("vmlinuz-").to_owned();
    let mut depmod = Command::new("busybox");
    let _ = depmod.arg("depmod").arg("-b").arg(&root).arg(&version);
    process::run(&mut depmod)?;
    Ok(Kernel {
        image: root.join("boot").join(&image),
        modules: root.join("lib/modules").join(&version),
        version,
    })
}

impl Kernel {
    /// Copies [`MODULES`] and those that they need into the image at `root`; the names of those that there are.
    pub fn copy_modules(&self, root: &Path) -> Result<Vec<&'static str>> {
        let list = fs::read_to_string(self.modules.join("modules.dep"))?;
        // Path of a module -> paths of all that it needs.
        let needs: BTreeMap<&str, Vec<&str>> = list
            .lines()
            .filter_map(|line| {
                let (path, needed) = line.split_once(':')?;
                Some((path, needed.split_ascii_whitespace().collect()))
            })
            .collect();
        let stem = |path: &str| {
            let name = path.rsplit('/').next().unwrap_or_default();
            name.split('.').next().unwrap_or_default().replace('-', "_")
        };
        let mut wanted = BTreeSet::new();
        let mut present = Vec::new();
        for module in MODULES {
            let Some((path, needed)) = needs.iter().find(|(path, _)| stem(path) == *module) else {
                continue;
            };
            present.push(*module);
            wanted.extend(needed.iter().copied().chain([*path]));
        }
        let target = root.join("lib/modules").join(&self.version);
        for path in wanted {
            let to = target.join(path);
            fs::create_dir_all(to.parent().unwrap_or(&target))?;
            let _bytes = fs::copy(self.modules.join(path), to)?;
        }
        let mut depmod = Command::new("busybox");
        let _ = depmod.arg("depmod").arg("-b").arg(root).arg(&self.version);
        process::run(&mut depmod)?;
        Ok(present)
    }
}

fn newest() -> Result<String> {
    let mut depends = Command::new("apt-cache");
    let _ = depends.args(["depends", "--important", META]);
    let text = process::output(&mut depends)?;
    text.lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .map(|name| name.trim().to_owned())
        .with_context(|| format!("no package is known that {META} depends on"))
}
