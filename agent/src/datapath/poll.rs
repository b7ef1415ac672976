//! Waits for descriptors in tokio.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;

/// Something that owns one descriptor, keeps it until it is dropped, and always answers with it.
pub trait OwnsDescriptor: AsFd + AsRawFd {}

impl OwnsDescriptor for OwnedFd {}
impl OwnsDescriptor for RingBuf<MapData> {}
impl OwnsDescriptor for EbpfLogger<&'static dyn log::Log> {}

/// Registers a descriptor with the runtime.
///
/// # Errors
/// The kernel's.
pub fn register<T: OwnsDescriptor>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the trait's promise: the descriptor stays open and the same until the owner is dropped,
    // and `AsyncFd` drops its registration before it drops the owner.
    unsafe { AsyncFd::register(owner) }.map_err(io::Error::from)
}
