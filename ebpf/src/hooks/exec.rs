//! Raw tracepoint `sched_process_exec` (optional): the agent sees an executable before it connects.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use aya_log_ebpf::debug;
use ringfence_common::abi::{Owner, event, event::Hook, identity};

use crate::{
    emit::{self, What},
    identity as who,
};

#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn exec(ctx: RawTracePointContext) -> i32 {
    let mut owner = Owner::default();
    who::starting(&mut owner);
    if owner.identity == identity::PENDING {
        debug!(
            &ctx,
            "exec pid {} runs an executable that is not judged yet", owner.tgid
        );
        let what = What::new(event::EXEC, Hook::Exec);
        emit::send_owner(what, 0, &owner);
    }
    0
}
