//! The binary contract between the kernel programs and user space.
//!
//! Every type here is `repr(C)`, has no implicit padding, holds plain integers only and has its size
//! asserted at compile time. A change of any of them needs a new [`version::ABI`].

pub mod answer;
pub mod cgroup;
pub mod count;
pub mod event;
pub mod executable;
pub mod flow;
pub mod handoff;
pub mod identity;
pub mod names;
pub mod reason;
pub mod rule;
pub mod settings;
pub mod socket;
pub mod tuple;
pub mod version;

pub use answer::{Answering, Unanswered};
pub use cgroup::{CgroupEntry, ChildKey};
pub use count::Count;
pub use event::Event;
pub use executable::{ClassGroups, ExecutableKey, ProcessKey};
pub use flow::{FlowEntry, FlowKey, Refusal, Refuser, Sender, SenderKey};
pub use handoff::Handoff;
pub use identity::Identity;
pub use reason::{Reason, Verdict};
pub use rule::{CidrKey, Direction, Header, Layer, RuleEntry, RuleKey, SlotKey};
pub use settings::{FailsafeEntry, LocalKey, Offsets, Settings};
pub use socket::{Decision, Owner, SocketState};
pub use tuple::Tuple;

/// Asserts size and alignment of an ABI type and, with feature `user`, lets aya copy it.
macro_rules! abi_type {
    ($type:ty, size = $size:expr, align = $align:expr) => {
        const _: () = assert!(
            core::mem::size_of::<$type>() == $size && core::mem::align_of::<$type>() == $align
        );
        // SAFETY: the type is `repr(C)`, `Copy`, has no implicit padding (its size is asserted and
        // equals the sum of its fields) and every bit pattern of its integer fields is valid.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $type {}
    };
}
pub(crate) use abi_type;
