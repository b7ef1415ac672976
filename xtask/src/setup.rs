//! `cargo xtask setup`: everything that building and testing needs, found or installed.

use anyhow::{Context, Result};

use crate::{process, system, toolchain};

pub fn run() -> Result<()> {
    let toolchain = toolchain::find_or_install()?;
    println!("compiler  {}", toolchain.name);
    println!("linker    {}", toolchain.linker.display());
    test_programs()
}

/// Checks the programs that tests call; installs what is missing and required.
pub fn test_programs() -> Result<()> {
    let missing = |package: &&system::Package| process::find_program(package.program).is_none();
    let mut wanted: Vec<_> = system::TEST_PACKAGES
        .iter()
        .filter(|package| package.required)
        .filter(missing)
        .map(|package| package.name)
        .collect();
    wanted.dedup();
    if !wanted.is_empty() {
        println!("packages  installing {}", wanted.join(" "));
        system::apt_install(&wanted).with_context(|| {
            let names = wanted.join(" ");
            format!("the tests need {names}: install them with your package manager")
        })?;
    }
    for package in system::TEST_PACKAGES {
        match process::find_program(package.program) {
            Some(path) => println!("{:<9} {}", package.program, path.display()),
            None => println!("{:<9} not installed (optional)", package.program),
        }
    }
    Ok(())
}
