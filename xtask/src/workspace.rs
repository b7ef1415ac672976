//! Where things are in the checkout. All paths are absolute.

use std::path::PathBuf;

/// The directory of the root `Cargo.toml`.
///
/// `cargo run` names it in the environment. What was compiled in can be another checkout's, where two
/// of them share a target directory.
pub fn root() -> PathBuf {
    let mut manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let _ = manifest.pop();
    manifest
}

/// Where what belongs to this checkout is kept, whatever `CARGO_TARGET_DIR` says.
pub fn target() -> PathBuf {
    root().join("target")
}

/// Tools that `setup` builds, and what it remembers.
pub fn tools() -> PathBuf {
    target().join("tools")
}

/// The kernel programs, as `agent/build.rs` looks for them.
pub fn bpf_object() -> PathBuf {
    target().join("bpf").join("ringfence.o")
}

/// Where cargo puts the host crates.
pub fn host_target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => root().join(dir),
        _ => target(),
    }
}
