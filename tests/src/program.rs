//! Where the programs under test are.

use std::path::PathBuf;

/// Directory of the agent and the controller; without it they are looked for beside this program.
pub const BIN_DIR: &str = "RINGFENCE_BIN_DIR";

/// A program of this crate, which cargo puts beside the test or one level above it.
#[must_use]
pub fn own(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().unwrap();
    let _ = dir.pop();
    if dir.ends_with("deps") {
        let _ = dir.pop();
    }
    let program = dir.join(name);
    assert!(program.is_file(), "{} is not built", program.display());
    program
}

/// The agent or the controller.
#[must_use]
pub fn product(name: &str) -> PathBuf {
    let Some(dir) = std::env::var_os(BIN_DIR) else {
        return own(name);
    };
    let program = PathBuf::from(dir).join(name);
    assert!(
        program.is_file(),
        "{} is not built; set {BIN_DIR} to the directory that holds it",
        program.display()
    );
    program
}
