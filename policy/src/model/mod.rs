//! Valid policy: whoever holds these types never checks again.

mod index;
mod policy;
mod reserved;
mod workload;

pub use index::Workloads;
pub(crate) use index::carries;
pub use policy::{Peer, Policy, Ports, Rule, RuleKind, Section};
pub use reserved::RESERVED;
pub use workload::{Selector, Workload};

use std::{collections::BTreeMap, sync::Arc};

use ringfence_common::abi::Identity;

/// One policy document as it came from a file or from the controller.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Document {
    /// Where it came from: a path, or the controller's name for it.
    pub name: String,
    /// TOML text.
    pub text: Arc<str>,
}

/// Workloads and policies of all documents together, checked against each other. Sets share what they have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySet {
    /// Workloads, ordered by name.
    pub workloads: Workloads,
    /// Policies, ordered by name.
    pub policies: Vec<Arc<Policy>>,
}

/// Policies, each shared with its set.
type Shared<'p> = Vec<&'p Arc<Policy>>;

impl PolicySet {
    /// Policies of this set and of another that are not in both. One that is bound to a time is never the same.
    pub(crate) fn difference<'p>(&'p self, other: &'p Self) -> (Shared<'p>, Shared<'p>) {
        let timed = |policy: &Policy| policy.not_before.is_some() || policy.not_after.is_some();
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        let mut before = self.policies.iter().peekable();
        for policy in &other.policies {
            if let Some(same) = before.next_if(|former| Arc::ptr_eq(former, policy)) {
                if timed(same) {
                    gone.push(same);
                    new.push(policy);
                }
                continue;
            }
            while let Some(former) = before.next_if(|former| former.name < policy.name) {
                gone.push(former);
            }
            let former = before.next_if(|former| former.name == policy.name);
            if former.is_some_and(|former| Arc::ptr_eq(former, policy) && !timed(policy)) {
                continue;
            }
            gone.extend(former);
            new.push(policy);
        }
        gone.extend(before);
        (gone, new)
    }
}

/// Identity of each workload by name.
pub type Identities = BTreeMap<String, Identity>;
