//! Builds the library that tests load into a program, with the compiler that is there for sure.

use std::{env, path::PathBuf, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=preload.rs");
    let of = |name: &str| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let library = PathBuf::from(of("OUT_DIR")).join("preload.so");
    let mut rustc = Command::new(of("RUSTC"));
    let _ = rustc
        .args(["preload.rs", "--edition=2024", "--crate-type=cdylib"])
        .args(["-Copt-level=2", "-Cpanic=abort", "-o"])
        .arg(&library)
        .arg("--target")
        .arg(of("TARGET"));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let _ = rustc.arg("-Clinker").arg(linker);
    }
    let status = rustc.status();
    assert!(
        status.as_ref().is_ok_and(std::process::ExitStatus::success),
        "preload.rs does not build: {status:?}"
    );
}
