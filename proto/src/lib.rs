//! gRPC contracts of Ringfence: generated code, and the little that both ends must compute alike.

pub mod checksum;
pub mod limits;
pub mod text;

/// Agent, flow log and policy synchronisation.
#[expect(
    missing_docs,
    unused_results,
    clippy::pedantic,
    clippy::large_enum_variant,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the .proto files are the documentation"
)]
pub mod v1 {
    tonic::include_proto!("ringfence.v1");
}

/// What container runtimes are asked for (CRI v1); the server is for tests.
#[expect(
    missing_docs,
    unused_results,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the .proto file is the documentation"
)]
pub mod cri {
    tonic::include_proto!("runtime.v1");
}

/// Descriptors of all services, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
