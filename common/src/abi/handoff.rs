//! What programs on one CPU hand to each other.

use super::{Decision, Tuple, abi_type};

/// Value of `HANDOFF`: what was judged last on a CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handoff {
    /// The flow.
    pub tuple: Tuple,
    /// The judgement.
    pub decision: Decision,
}
abi_type!(Handoff, size = 72, align = 8);
