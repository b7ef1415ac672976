//! One heap for all threads.

/// Keeps glibc from giving threads heaps of their own (`malloc/arena.c`): a policy is made by whichever thread has time,
/// and each would keep the memory of the largest it ever made. Call it before there are threads.
pub fn share() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: a parameter of the allocator, changed while this is the only thread.
        let _refused = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}
