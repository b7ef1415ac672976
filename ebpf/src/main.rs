//! The kernel programs of Ringfence.
//!
//! Hooks in `hooks/` turn a kernel context into a question and map the verdict to the hook's return
//! code in one `match`. [`identity`] says who asks, [`peer`] who is asked, [`policy`] decides,
//! [`tcp`] and [`datagram`] remember what was decided, [`emit`] tells user space.
//!
//! Invariants: a program reads the active generation once and judges everything by it; a helper that
//! fails is counted and the stated outcome is deny; nothing here trusts a packet's bytes.
#![no_std]
#![no_main]
#![expect(
    clippy::inline_always,
    reason = "calls in the bpf target take five arguments and share 512 bytes of stack"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "the kernel's contexts hold small numbers in words; a checked conversion costs branches"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "aya's macros hand the context over by value"
)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod acting;
mod answer;
mod cached;
mod cgroup;
mod datagram;
mod emit;
mod flows;
mod groups;
mod handoff;
mod hooks;
mod identity;
mod listener;
mod maps;
mod peer;
mod policy;
mod refusal;
mod sender;
mod sides;
mod sock;
mod taken;
mod task;
mod tcp;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: no code path can panic (the verifier would refuse the endless loop), so this is never run.
    unsafe { core::hint::unreachable_unchecked() }
}

/// Helpers such as `bpf_sk_lookup_tcp` are for programs under a GPL-compatible license.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
