//! Identities: the number by which the kernel knows a workload.

/// Number of a workload or of a reserved party, the same on every host of one deployment.
pub type Identity = u32;

/// Not known; never allowed.
pub const UNKNOWN: Identity = 0;
/// This host, no workload.
pub const HOST: Identity = 1;
/// Any address that is neither a managed host's nor a known endpoint's.
pub const WORLD: Identity = 2;
/// A managed host, workload unknown.
pub const REMOTE_HOST: Identity = 3;
/// The kernel itself.
pub const KERNEL: Identity = 4;
/// A process whose executable the agent has not judged yet.
pub const PENDING: Identity = 5;
/// The controller.
pub const CONTROLLER: Identity = 6;
/// The agent.
pub const AGENT: Identity = 7;
/// First identity of a workload.
pub const FIRST_WORKLOAD: Identity = 256;
/// First address class: the key under which a policy stores rules about a CIDR.
pub const FIRST_CIDR: Identity = 1 << 24;
/// One past the last address class (names resolved to addresses follow).
pub const END_CIDR: Identity = 1 << 25;

/// Whether the number stands for a workload.
#[must_use]
pub const fn is_workload(identity: Identity) -> bool {
    identity >= FIRST_WORKLOAD && identity < FIRST_CIDR
}
