//! The bench's policy by nftables: rules with `socket cgroupv2`, in the network namespaces of the bench only.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use ringfence_tests::{Sandbox, sandbox::cgroup2_mount};

/// `nft` looks for cgroups below /sys/fs/cgroup: there, in a mount namespace of its own, is the hierarchy.
const SETUP: &str =
    "mount --rbind \"$0\" /sys/fs/cgroup && exec nsenter --net=\"$1\" nft --file \"$2\"";
/// Ports of the bench, as in its policies.
const TCP: &str = "{ 7000, 7001, 7080, 7379 }";

/// Loads `rules` rules for each direction into the namespace at `netns`; only the last one lets traffic pass.
/// With `tracked`, packets of established connections are not judged again.
pub fn load(sandbox: &Sandbox, netns: &Path, rules: u32, tracked: bool) {
    let client = cgroup(sandbox, "client");
    let server = cgroup(sandbox, "server");
    let other = cgroup(sandbox, "other");
    let established = if tracked {
        "ct state established,related accept\n"
    } else {
        ""
    };
    let mut text = String::from("table inet bench {\n");
    for (hook, own) in [("output", &client), ("input", &server)] {
        let _ = writeln!(
            text,
            "chain {hook} {{\ntype filter hook {hook} priority 0; policy accept;\n{established}"
        );
        for number in 1..rules {
            let _ = writeln!(text, "{other} tcp dport {} accept", 20_000 + number);
        }
        // The tool needs one statement for each protocol; a datagram passes one rule more.
        let _ = writeln!(text, "{own} tcp dport {TCP} accept");
        let _ = writeln!(text, "{own} udp dport 7002 accept");
        let _ = writeln!(text, "{own} drop\n}}");
    }
    text += "}\n";
    let file = sandbox.files().join(format!("rules-{rules}.nft"));
    fs::write(&file, text).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", SETUP])
        .arg(cgroup2_mount())
        .arg(netns)
        .arg(&file)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let first: Vec<_> = errors.lines().take(4).collect();
    assert!(output.status.success(), "nft: {}", first.join("\n"));
}

/// The expression that matches the processes of a cgroup of the sandbox.
fn cgroup(sandbox: &Sandbox, name: &str) -> String {
    let path: PathBuf = sandbox.cgroup(name);
    let path = path.strip_prefix(cgroup2_mount()).unwrap();
    format!(
        "socket cgroupv2 level {} \"{}\"",
        path.components().count(),
        path.display()
    )
}
