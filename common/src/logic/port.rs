//! Ports as prefixes: a range becomes the fewest (port, prefix length) pairs that cover it.

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

/// Calls `each` with (port, prefix length) for the fewest prefixes that cover `first..=last`.
pub fn prefixes(first: u16, last: u16, mut each: impl FnMut(u16, u8)) {
    let mut start = u32::from(first);
    let end = u32::from(last) + 1;
    while start < end {
        let aligned = if start == 0 { 1 << 16 } else { 1 << start.trailing_zeros() };
        let mut size = aligned;
        while start + size > end {
            size >>= 1;
        }
        let prefix = 16 - size.trailing_zeros();
        // Both fit: `start` is at most 65535 and the prefix at most 16.
        #[expect(clippy::cast_possible_truncation, reason = "start <= 65535, prefix <= 16")]
        each(start as u16, prefix as u8);
        start += size;
    }
}
