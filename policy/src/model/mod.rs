//! Valid policy: whoever holds these types never checks again.

mod index;
mod policy;
mod reserved;
mod workload;

pub(crate) use index::LabelIndex;
pub use policy::{Peer, Policy, Ports, Rule, RuleKind, Section};
pub use reserved::RESERVED;
pub use workload::{Selector, Workload};

use std::collections::BTreeMap;

use ringfence_common::abi::Identity;

/// One policy document as it came from a file or from the controller.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Document {
    /// Where it came from: a path, or the controller's name for it.
    pub name: String,
    /// TOML text.
    pub text: String,
}

/// Workloads and policies of all documents together, checked against each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySet {
    /// Workloads, ordered by name.
    pub workloads: Vec<Workload>,
    /// Policies, ordered by name.
    pub policies: Vec<Policy>,
}

/// Identity of each workload by name.
pub type Identities = BTreeMap<String, Identity>;
