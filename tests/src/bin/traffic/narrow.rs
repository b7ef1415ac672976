//! System calls of a 64-bit process by the kernel's 32-bit interface, where it has one; elsewhere the process
//! is ended by the kernel.

use std::os::fd::RawFd;

use nix::{errno::Errno, libc};

/// `setsockopt` by `int 0x80`.
#[cfg(target_arch = "x86_64")]
pub fn set_option(fd: RawFd, level: i32, name: i32, value: &[u8]) -> nix::Result<()> {
    /// `arch/x86/entry/syscalls/syscall_32.tbl`.
    const SETSOCKOPT: i32 = 366;
    /// Bytes of the memory that such calls can name.
    const PAGE: usize = 4096;
    if value.len() > PAGE {
        return Err(Errno::EINVAL);
    }
    // SAFETY: new memory, which no reference is to; it stays until the process ends.
    let page = unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        libc::mmap(std::ptr::null_mut(), PAGE, protection, flags, -1, 0)
    };
    if page == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    let place = page.cast::<u8>();
    // SAFETY: the page is as long as the value at least, and writable.
    unsafe { place.copy_from_nonoverlapping(value.as_ptr(), value.len()) };
    let result: i32;
    // SAFETY: the kernel reads the value, whose address has 32 bits, and writes no memory. The first argument
    // travels in a register that the compiler keeps for itself, so it is put there for the call only.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {fd}",
            "int 0x80",
            "xchg rbx, {fd}",
            fd = inout(reg) i64::from(fd) => _,
            inlateout("eax") SETSOCKOPT => result,
            in("ecx") level,
            in("edx") name,
            in("rsi") place,
            in("rdi") value.len(),
            lateout("r8") _,
            lateout("r9") _,
            lateout("r10") _,
            lateout("r11") _,
        );
    }
    if result < 0 {
        return Err(Errno::from_raw(-result));
    }
    Ok(())
}

/// There is no way into that interface from a 64-bit process.
#[cfg(not(target_arch = "x86_64"))]
pub fn set_option(_fd: RawFd, _level: i32, _name: i32, _value: &[u8]) -> nix::Result<()> {
    Err(Errno::ENOSYS)
}
