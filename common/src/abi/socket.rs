//! What the kernel remembers of a socket.

use super::{ExecutableKey, Identity, abi_type};

/// Who owns a socket, as of the last time a process connected, bound or sent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Identity; [`super::identity::PENDING`] while the executable is not judged.
    pub identity: Identity,
    /// Process class of the cgroup with the process's [`super::executable::MEMBER`] bits, 0 = none.
    pub class: u32,
    /// cgroup of the process.
    pub cgroup: u64,
    /// Network namespace cookie of the socket (`SO_NETNS_COOKIE`), 0 = not known.
    pub netns: u64,
    /// Executable; zero where it can't be read.
    pub executable: ExecutableKey,
    /// Thread group id in the initial PID namespace; 0 = no process: the kernel, or not known.
    pub tgid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Command name, NUL-padded (`task_struct.comm`).
    pub comm: [u8; 16],
    /// Generation under which the identity was found, lowest 32 bits: under another one it is found anew,
    /// from cgroup, executable, user and groups as they were.
    pub generation: u32,
    /// Zero.
    pub pad: u32,
}
abi_type!(Owner, size = 80, align = 8);

/// What was decided about a flow, and until when it may be believed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Believed before this time (`CLOCK_BOOTTIME`, nanoseconds), the lowest bits of which are a stamp
    /// ([`crate::logic::stamp`]); all bits but these = without end.
    pub until: u64,
    /// Rule that decided, 0 = none.
    pub rule: u32,
    /// Rule that decides with the draft policies added, 0 = none.
    pub draft_rule: u32,
    /// Identity of the peer.
    pub peer: Identity,
    /// [`super::Direction`] as a number: who opened the flow.
    pub direction: u8,
    /// [`DECIDED_BY_PEER`], [`PEER_VERIFIED`].
    pub flags: u8,
    /// Zero.
    pub pad: [u8; 2],
    /// Generation that was judged by, lowest 32 bits. In one word with the verdict, so that a program which
    /// reads them while another CPU writes never sees a new generation with an old verdict.
    pub generation: u32,
    /// [`super::Verdict`] as a number.
    pub verdict: u8,
    /// [`super::Reason`] as a number.
    pub reason: u8,
    /// Verdict with the draft policies added.
    pub draft_verdict: u8,
    /// Reason with the draft policies added.
    pub draft_reason: u8,
}
abi_type!(Decision, size = 32, align = 8);
const _: () = assert!(
    core::mem::offset_of!(Decision, generation) == 24
        && core::mem::offset_of!(Decision, verdict) == 28
);

/// The policy of the peer's identity decided, not the owner's.
pub const DECIDED_BY_PEER: u8 = 1;
/// The peer's identity is proved (same host).
pub const PEER_VERIFIED: u8 = 2;
/// The deny was by an earlier allow being revoked: the flow was live.
pub const REVOKED: u8 = 4;

/// Nothing decided yet.
pub const PHASE_NEW: u8 = 0;
/// Allowed, the handshake is under way.
pub const PHASE_OPENING: u8 = 1;
/// Established; its open record was emitted.
pub const PHASE_OPEN: u8 = 2;
/// Denied; its deny record was emitted.
pub const PHASE_DENIED: u8 = 3;
/// Closed; its close record was emitted.
pub const PHASE_CLOSED: u8 = 4;

/// A FIN of the peer was accounted in `bytes_received`.
pub const FIN_RECEIVED: u8 = 1;
/// A FIN was sent.
pub const FIN_SENT: u8 = 2;
/// The socket was accepted.
pub const PASSIVE: u8 = 4;

/// A process asked for a port while the socket had one: it owns the socket if the kernel gives it that port.
pub const BINDS_AGAIN: u8 = 8;

/// TCP: a process whose executable was not judged yet asked for the port. Who turns out to have no right to it does not keep
/// it.
pub const BOUND_UNJUDGED: u8 = 16;

/// Value of `SOCKETS`. An accepted socket starts with a copy of its listener's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketState {
    /// Who owns it.
    pub owner: Owner,
    /// What was decided about its TCP flow.
    pub decision: Decision,
    /// When the flow was opened (`CLOCK_BOOTTIME`, nanoseconds).
    pub opened_ns: u64,
    /// Sequence number after the peer's FIN, for sockets that wait for it.
    pub fin_end: u32,
    /// Digest of the address and port that `connect` was judged by: another program may put a
    /// different destination in their place afterwards.
    pub called: u32,
    /// `PHASE_*`.
    pub phase: u8,
    /// [`FIN_RECEIVED`], [`FIN_SENT`], [`PASSIVE`], [`BINDS_AGAIN`], [`BOUND_UNJUDGED`].
    pub marks: u8,
    /// Zero.
    pub pad: [u8; 2],
    /// Since when its packets are held, in 2^20 ns of `CLOCK_BOOTTIME`; 0 = they are not.
    pub held: u32,
}
abi_type!(SocketState, size = 136, align = 8);
