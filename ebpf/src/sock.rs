//! Reads addresses and packets out of kernel contexts.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock, bpf_sock_addr, bpf_sock_ops},
    helpers::generated::{
        bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_sk_fullsock, bpf_skb_load_bytes,
    },
};
use core::{ffi::c_void, ptr::read_volatile};
use ringfence_common::{
    abi::{Tuple, event::Hook, tuple::TCP},
    logic::{
        address::{Words, mapped},
        packet::{Bytes, Packet},
    },
};

/// `AF_INET`.
pub const AF_INET: u32 = 2;
/// `AF_INET6`.
pub const AF_INET6: u32 = 10;
/// `SOCK_STREAM`.
pub const SOCK_STREAM: u32 = 1;
/// `SOCK_RAW`.
pub const SOCK_RAW: u32 = 3;
/// State of a listening socket (`TCP_LISTEN`).
pub const LISTEN: u32 = 10;
/// State of a socket whose SYN is not answered yet (`TCP_SYN_SENT`).
pub const SYN_SENT: u32 = 2;
/// Index of the loopback device in every network namespace.
pub const LOOPBACK: u32 = 1;

/// `CLOCK_BOOTTIME` in nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Index of the device that the packet comes from or goes to.
#[inline(always)]
pub fn device(skb: *mut __sk_buff) -> u32 {
    // SAFETY: the context is the hook's own.
    unsafe { read_volatile(&raw const (*skb).ifindex) }
}

/// Cookie of the context's socket.
#[inline(always)]
pub fn cookie(ctx: *mut c_void) -> u64 {
    // SAFETY: every caller passes its hook's own context.
    unsafe { bpf_get_socket_cookie(ctx) }
}

/// The words of an address field of an 8-byte aligned type.
#[inline(always)]
#[expect(
    clippy::cast_ptr_alignment,
    reason = "the address stands at a multiple of 4"
)]
pub fn words(address: &[u8; 16]) -> Words {
    let from = address.as_ptr().cast::<u32>();
    // SAFETY: four words lie behind the reference; every address that the programs hold stands at a
    // multiple of 4 in an 8-byte aligned type.
    unsafe { [*from, *from.add(1), *from.add(2), *from.add(3)] }
}

/// Writes an address field of an 8-byte aligned type.
#[inline(always)]
#[expect(
    clippy::cast_ptr_alignment,
    reason = "the address stands at a multiple of 4"
)]
pub fn set(address: &mut [u8; 16], words: Words) {
    let to = address.as_mut_ptr().cast::<u32>();
    let [a, b, c, d] = words;
    // SAFETY: as above.
    unsafe {
        *to = a;
        *to.add(1) = b;
        *to.add(2) = c;
        *to.add(3) = d;
    }
}

/// The word at a fixed offset of a kernel context or socket. In assembly, because the verifier wants
/// the offset in the load itself and the optimiser likes to add it to the pointer first.
///
/// # Safety
/// `base` is a pointer that the verifier knows, and the offset that of a 4-byte field.
#[inline(always)]
unsafe fn word<const OFFSET: usize>(base: *const c_void) -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let value: u64;
        // SAFETY: the caller's promise; the verifier checks it again.
        unsafe {
            core::arch::asm!(
                "{value} = *(u32 *)({base} + {offset})",
                value = lateout(reg) value,
                base = in(reg) base,
                offset = const OFFSET,
                options(nostack, readonly, preserves_flags),
            );
        }
        value as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    unsafe {
        base.byte_add(OFFSET).cast::<u32>().read_unaligned()
    }
}

/// Four words from a field of a context or socket on.
macro_rules! words {
    ($base:expr, $type:ty, $field:ident) => {{
        const AT: usize = core::mem::offset_of!($type, $field);
        let base = $base.cast::<c_void>().cast_const();
        // SAFETY: `base` is the hook's context or a socket, the field four words long.
        unsafe {
            [
                word::<AT>(base),
                word::<{ AT + 4 }>(base),
                word::<{ AT + 8 }>(base),
                word::<{ AT + 12 }>(base),
            ]
        }
    }};
}

/// One word of a context or socket.
macro_rules! field {
    ($base:expr, $type:ty, $field:ident) => {{
        const AT: usize = core::mem::offset_of!($type, $field);
        // SAFETY: the pointer is the hook's context or a socket, the field one word long.
        unsafe { word::<AT>($base.cast::<c_void>().cast_const()) }
    }};
}

/// Address of a socket call, IPv4 mapped.
#[inline(always)]
pub fn user_address(ctx: *mut bpf_sock_addr, is_v6: bool) -> Words {
    if is_v6 {
        return words!(ctx, bpf_sock_addr, user_ip6);
    }
    mapped(field!(ctx, bpf_sock_addr, user_ip4))
}

/// Port of a socket call.
#[inline(always)]
pub fn user_port(ctx: *mut bpf_sock_addr) -> u16 {
    u16::from_be(field!(ctx, bpf_sock_addr, user_port) as u16)
}

/// Writes the address and port that the socket is bound to (zero where it is not).
#[inline(always)]
pub fn bound(sk: *mut bpf_sock, tuple: &mut Tuple) {
    tuple.local_port = field!(sk, bpf_sock, src_port) as u16;
    if field!(sk, bpf_sock, family) == AF_INET {
        set(&mut tuple.local, mapped(field!(sk, bpf_sock, src_ip4)));
    } else {
        set(&mut tuple.local, words!(sk, bpf_sock, src_ip6));
    }
}

/// Writes the addresses of a connected TCP socket.
#[inline(always)]
pub fn connected(sk: *mut bpf_sock, tuple: &mut Tuple) {
    bound(sk, tuple);
    // SAFETY: the field has two bytes since 5.18; before, its lower half had the same place.
    tuple.remote_port = u16::from_be(unsafe { read_volatile(&raw const (*sk).dst_port) });
    tuple.protocol = TCP;
    if field!(sk, bpf_sock, family) == AF_INET {
        set(&mut tuple.remote, mapped(field!(sk, bpf_sock, dst_ip4)));
    } else {
        set(&mut tuple.remote, words!(sk, bpf_sock, dst_ip6));
    }
}

/// Writes protocol, addresses and ports of a packet, from the view of the socket that sends or gets it.
#[inline(always)]
pub fn of_packet(packet: &Packet, hook: Hook, tuple: &mut Tuple) {
    tuple.protocol = packet.protocol;
    if hook as u8 == Hook::Ingress as u8 {
        set(&mut tuple.local, words(&packet.destination));
        set(&mut tuple.remote, words(&packet.source));
        tuple.local_port = packet.destination_port;
        tuple.remote_port = packet.source_port;
    } else {
        set(&mut tuple.local, words(&packet.source));
        set(&mut tuple.remote, words(&packet.destination));
        tuple.local_port = packet.source_port;
        tuple.remote_port = packet.destination_port;
    }
}

/// Address and port of a socket's peer in one word, to notice that they changed.
#[inline(always)]
pub fn digest(address: Words, port: u16) -> u32 {
    let [a, b, c, d] = address;
    let mixed = (a.rotate_left(5) ^ b).rotate_left(9) ^ c.rotate_left(17) ^ d;
    mixed.wrapping_mul(0x9e37_79b1) ^ (u32::from(port) << 8)
}

/// Writes the addresses of the socket of a `sock_ops` call.
#[inline(always)]
pub fn of_ops(ctx: *mut bpf_sock_ops, tuple: &mut Tuple) {
    tuple.protocol = TCP;
    tuple.local_port = field!(ctx, bpf_sock_ops, local_port) as u16;
    tuple.remote_port = u32::from_be(field!(ctx, bpf_sock_ops, remote_port)) as u16;
    if field!(ctx, bpf_sock_ops, family) == AF_INET {
        set(
            &mut tuple.local,
            mapped(field!(ctx, bpf_sock_ops, local_ip4)),
        );
        set(
            &mut tuple.remote,
            mapped(field!(ctx, bpf_sock_ops, remote_ip4)),
        );
    } else {
        set(&mut tuple.local, words!(ctx, bpf_sock_ops, local_ip6));
        set(&mut tuple.remote, words!(ctx, bpf_sock_ops, remote_ip6));
    }
}

/// The packet's socket when it is a full one.
#[inline(always)]
pub fn full_socket(skb: *mut __sk_buff) -> Option<*mut bpf_sock> {
    // SAFETY: the context is the hook's own; the helper checks what the field points to.
    unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        let full = bpf_sk_fullsock(sk);
        if full.is_null() { None } else { Some(full) }
    }
}

/// Whether the packet's IP header is followed by TCP, without options or extension headers. It looks at the bytes
/// themselves, which is cheaper than a helper; a header that is not in the packet's first part is not plain.
#[inline(always)]
pub fn is_plain(skb: *mut __sk_buff) -> bool {
    const HEAD: usize = 8;
    // SAFETY: the context is the hook's own; the verifier makes pointers of the fields, and sees that what is
    // read lies before the end.
    let (first, next) = unsafe {
        let (start, end) = ((*skb).data as usize, (*skb).data_end as usize);
        if start + HEAD > end {
            return false;
        }
        let head = start as *const u8;
        (*head, *head.add(6))
    };
    first == 0x45 || (first >> 4 == 6 && next == TCP)
}

/// A packet of `cgroup_skb`: it starts with the IP header.
#[derive(Clone, Copy)]
pub struct Skb(pub *mut __sk_buff);

impl Bytes for Skb {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32, to: &mut [u8; N]) -> bool {
        // SAFETY: the helper writes exactly `N` bytes or fails.
        unsafe { bpf_skb_load_bytes(self.0.cast(), offset, to.as_mut_ptr().cast(), N as u32) == 0 }
    }
}
