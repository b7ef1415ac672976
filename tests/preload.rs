//! What `LD_PRELOAD` puts into an approved program: a `connect` that calls port 81 where the program calls port 82.
//!
//! Built by `build.rs`. Holds on to nothing, so that a program that is loaded with it does all else as before.
#![no_std]

use core::{
    ffi::{c_int, c_long},
    panic::PanicInfo,
};

#[cfg(target_arch = "x86_64")]
const CONNECT: c_long = 42;
#[cfg(target_arch = "aarch64")]
const CONNECT: c_long = 203;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// `connect(2)` of an IPv4 address; `errno` is set by the library's `syscall`.
///
/// # Safety
/// As `connect(2)`: `address` is valid for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn connect(fd: c_int, address: *const u8, length: u32) -> c_int {
    let mut other = [0; 16];
    let mut target = address;
    if length as usize == other.len() {
        // SAFETY: the caller's address has as many bytes.
        unsafe { address.copy_to_nonoverlapping(other.as_mut_ptr(), other.len()) };
        // `sin_port`, in network order.
        if let [_, _, 0, port @ 82, ..] = &mut other {
            *port = 81;
            target = other.as_ptr();
        }
    }
    // SAFETY: the kernel reads the address, which outlives the call.
    let result = unsafe { syscall(CONNECT, fd, target, length) };
    result as c_int
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}
