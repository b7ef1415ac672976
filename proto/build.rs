//! Compiles the `.proto` files without `protoc` and keeps the descriptors for gRPC reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 5] = [
    "ringfence/v1/agent.proto",
    "ringfence/v1/flow.proto",
    "ringfence/v1/inventory.proto",
    "ringfence/v1/policy_change.proto",
    "ringfence/v1/policy_sync.proto",
];

/// The container runtimes' interface, which the agent calls and does not serve: no part of its reflection.
const CRI: &str = "runtime/v1/cri.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    tonic_prost_build::configure().compile_fds(protox::compile([CRI], ["proto"])?)?;
    Ok(())
}
