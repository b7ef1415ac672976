//! Tells the agent where the compiled kernel programs are, which it embeds.

use std::{env, error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=RINGFENCE_BPF_OBJECT");
    let object = match env::var_os("RINGFENCE_BPF_OBJECT") {
        Some(object) => object.into(),
        None => Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../target/bpf/ringfence.o"),
    };
    println!("cargo::rerun-if-changed={}", object.display());
    match fs::canonicalize(&object) {
        Ok(object) => {
            println!("cargo::rustc-env=RINGFENCE_BPF_OBJECT={}", object.display());
        }
        Err(error) => println!(
            "cargo::error=the kernel programs are not at {}: {error}; run `cargo xtask build`",
            object.display()
        ),
    }
    Ok(())
}
