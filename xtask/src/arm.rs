//! `cargo xtask arm`: type-checks for 64-bit ARM what can be without a C compiler for it.
//!
//! `std` is checked from source, because rustup has it for this machine's target only unless more was added. The crates
//! that depend on `ring` need a cross compiler for C and are left out.

use anyhow::Result;

use crate::{process, toolchain, workspace};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const CHECKED: [&str; 2] = ["ringfence-common", "ringfence-policy"];
const LEFT_OUT: &str =
    "agent, controller, documents, proto, tests: `ring` needs a C compiler for it";

pub fn run() -> Result<()> {
    let toolchain = toolchain::find_or_install()?;
    let mut cargo = toolchain.cargo();
    let _ = cargo
        .args([
            "check",
            "--quiet",
            "-Zbuild-std=std,panic_abort",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(workspace::target().join("arm"))
        .args(CHECKED.map(|name| format!("--package={name}")));
    process::run(&mut cargo)?;
    println!("checked for {TARGET}: {}", CHECKED.join(", "));
    println!("not checked: {LEFT_OUT}");
    Ok(())
}
