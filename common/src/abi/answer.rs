//! Answers to what is refused.

use super::abi_type;

/// How refusals are answered, set by the loader: what is off is not in the programs at all.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answering {
    /// Error number that `connect` ends with where the policy of a listener on this host refuses, 0 = `EPERM`.
    pub local_errno: u32,
    /// 1 = user space is told of refused packets, so that it answers them.
    pub remote: u32,
    /// Packets that it is told of at once, and of one source at most.
    pub burst: u64,
    /// As `burst`, of one source.
    pub source_burst: u64,
    /// Time until there may be one more, nanoseconds.
    pub interval_ns: u64,
    /// As `interval_ns`, of one source.
    pub source_interval_ns: u64,
}
abi_type!(Answering, size = 40, align = 8);

/// Bytes of a packet that an answer needs: an IPv6 header and 8 bytes behind it.
pub const HEAD_BYTES: usize = 48;

/// One record of `UNANSWERED`: a packet that was refused.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// When (`CLOCK_BOOTTIME`, nanoseconds).
    pub time_ns: u64,
    /// Cookie of the network namespace that it came into.
    pub netns: u64,
    /// Index of the device there.
    pub device: u32,
    /// Of a SYN: the sequence number that follows it.
    pub acknowledge: u32,
    /// Its beginning: an IP header without options, and 8 bytes behind it; zero beyond.
    pub head: [u8; HEAD_BYTES],
}
abi_type!(Unanswered, size = 72, align = 8);
