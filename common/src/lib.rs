//! Types and pure logic that the kernel programs, the agent and the tests share.
//!
//! Owns the binary contract between kernel and user space ([`abi`]) and the decisions that must be
//! the same on both sides ([`logic`]). Never allocates, never does I/O, never reads a clock: time
//! and map look-ups are passed in. Feature `user` adds what only user space needs.
#![no_std]
#![expect(
    clippy::inline_always,
    reason = "calls in the bpf target take five arguments and share 512 bytes of stack"
)]

#[cfg(any(feature = "user", test))]
extern crate std;

#[cfg(target_endian = "big")]
compile_error!("Ringfence is built and tested for little-endian machines only");

pub mod abi;
pub mod logic;
