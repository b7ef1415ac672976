//! Records that the programs send to user space.

use super::{Decision, Owner, Tuple, abi_type};

/// A flow was opened.
pub const OPEN: u8 = 1;
/// A flow ended; the byte counters are final.
pub const CLOSE: u8 = 2;
/// A flow, a bind or a socket was refused, or a live flow was revoked.
pub const DENY: u8 = 3;
/// An executable is not judged yet; the owner's class and executable say which.
pub const PENDING: u8 = 4;
/// A process executed a program.
pub const EXEC: u8 = 5;
/// The last descriptor of a socket without connection was closed: its flows end.
pub const RELEASE: u8 = 6;
/// A call whose SYN was held is refused, and its workload has no more refusals to record: the agent ends it and
/// shows nothing.
pub const ABORT: u8 = 7;

/// The connection never reached the established state.
pub const NEVER_ESTABLISHED: u8 = 1;
/// The flow map had no room for the flow: no close record will follow.
pub const UNTRACKED: u8 = 2;

/// One record of `EVENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// When (`CLOCK_BOOTTIME`, nanoseconds).
    pub time_ns: u64,
    /// When the flow was opened, 0 = it never was.
    pub opened_ns: u64,
    /// Socket cookie.
    pub cookie: u64,
    /// Payload bytes sent by the local socket.
    pub tx_bytes: u64,
    /// Payload bytes received by the local socket.
    pub rx_bytes: u64,
    /// Addresses.
    pub tuple: Tuple,
    /// Owner of the local socket.
    pub owner: Owner,
    /// What was decided.
    pub decision: Decision,
    /// Smoothed round-trip time, microseconds; 0 = not known.
    pub rtt_us: u32,
    /// `OPEN` … `ABORT`.
    pub kind: u8,
    /// [`NEVER_ESTABLISHED`], [`UNTRACKED`].
    pub flags: u8,
    /// [`Hook`] as a number.
    pub hook: u8,
    /// Zero.
    pub pad: u8,
}
abi_type!(Event, size = 200, align = 8);

/// The hook that saw the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Hook {
    /// `cgroup/sock_create`.
    SockCreate = 1,
    /// `cgroup/connect4` and `connect6`.
    Connect = 2,
    /// `cgroup/sendmsg4` and `sendmsg6`.
    Sendmsg = 3,
    /// `cgroup/bind4` and `bind6`.
    Bind = 4,
    /// `cgroup_skb/ingress`.
    Ingress = 5,
    /// `cgroup_skb/egress`.
    Egress = 6,
    /// `sock_ops`.
    SockOps = 7,
    /// `cgroup/sock_release`.
    SockRelease = 8,
    /// Tracepoint `sched_process_exec`.
    Exec = 9,
    /// tc egress of a device: frames of packet sockets.
    Frame = 10,
    /// `cgroup/setsockopt`.
    Setsockopt = 11,
    /// `lsm_cgroup/socket_create`.
    Socket = 12,
}
