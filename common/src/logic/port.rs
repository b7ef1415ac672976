//! Ports as prefixes: a range becomes (port, prefix length) pairs that cover it.

/// Prefix lengths in use. Few, because the kernel looks up one key for each; a range needs at most
/// 15 keys on either side for each length.
pub const LENGTHS: [u8; 5] = [0, 4, 8, 12, 16];

/// The leading `prefix` bits of `port` (0 to 16).
#[must_use]
#[inline(always)]
pub const fn mask(port: u16, prefix: u8) -> u16 {
    match prefix {
        0 => 0,
        1..=15 => port & (u16::MAX << (16 - prefix)),
        _ => port,
    }
}

/// Calls `each` with the (port, prefix length) pairs of [`LENGTHS`] that cover `first..=last` without
/// overlap, largest blocks first where they fit.
pub fn prefixes(first: u16, last: u16, mut each: impl FnMut(u16, u8)) {
    let mut start = u32::from(first);
    let end = u32::from(last) + 1;
    while start < end {
        let mut prefix = 0u8;
        let mut size = 1u32 << 16;
        while start % size != 0 || start + size > end {
            prefix += 4;
            size >>= 4;
        }
        #[expect(clippy::cast_possible_truncation, reason = "start is at most 65535")]
        each(start as u16, prefix);
        start += size;
    }
}
