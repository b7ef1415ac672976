//! Names that are not a workload's.

use ringfence_common::abi::identity::{
    AGENT, CONTROLLER, HOST, Identity, KERNEL, PENDING, REMOTE_HOST, UNKNOWN, WORLD,
};

/// Names of the reserved identities, in flow records and in questions; no workload can have them.
pub const RESERVED: [(&str, Identity); 8] = [
    ("unknown", UNKNOWN),
    ("host", HOST),
    ("world", WORLD),
    ("remote-host", REMOTE_HOST),
    ("kernel", KERNEL),
    ("pending", PENDING),
    ("controller", CONTROLLER),
    ("agent", AGENT),
];
