//! One form for every address: IPv6, with IPv4 mapped.
//!
//! The logic works on [`Words`]: four words as the kernel keeps them, because the bpf target copies
//! bytes one by one. User space has the same functions on bytes.

/// An IPv6 address as four words in network order.
pub type Words = [u32; 4];

const PREFIX_MAPPED: u32 = 0xffff_u32.to_be();
const PREFIX_NAT64: u32 = 0x0064_ff9b_u32.to_be();
const ONE: u32 = 1_u32.to_be();
const LOCALHOST: u32 = 0x7f00_0001_u32.to_be();

/// The words of 16 bytes.
#[must_use]
#[inline(always)]
#[expect(clippy::many_single_char_names, reason = "one letter a byte")]
pub const fn words(bytes: &[u8; 16]) -> Words {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ]
}

/// The 16 bytes of an address.
#[must_use]
#[inline(always)]
#[expect(clippy::many_single_char_names, reason = "one letter a word or byte")]
pub const fn bytes(words: Words) -> [u8; 16] {
    let [w, x, y, z] = words;
    let [a, b, c, d] = w.to_ne_bytes();
    let [e, f, g, h] = x.to_ne_bytes();
    let [i, j, k, l] = y.to_ne_bytes();
    let [m, n, o, p] = z.to_ne_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// `a.b.c.d` (in network order) as `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2).
#[must_use]
#[inline(always)]
pub const fn mapped(v4: u32) -> Words {
    [0, 0, PREFIX_MAPPED, v4]
}

/// Whether the address is IPv4-mapped.
#[must_use]
#[inline(always)]
pub const fn is_mapped(words: Words) -> bool {
    matches!(words, [0, 0, PREFIX_MAPPED, _])
}

/// [`policy_address`] on words.
#[must_use]
#[inline(always)]
pub const fn policy_words(words: Words) -> Words {
    match words {
        [PREFIX_NAT64, 0, 0, v4] => mapped(v4),
        other => other,
    }
}

/// [`destination`] on words.
#[must_use]
#[inline(always)]
pub const fn destination_words(words: Words) -> Words {
    match words {
        [0, 0, 0, 0] => [0, 0, 0, ONE],
        [0, 0, PREFIX_MAPPED, 0] => mapped(LOCALHOST),
        other => other,
    }
}

/// Whether the words are those of `0.0.0.0` or `::`.
#[must_use]
#[inline(always)]
pub const fn is_unspecified_words(words: Words) -> bool {
    matches!(words, [0, 0, 0 | PREFIX_MAPPED, 0])
}

/// [`is_loopback`] on words.
#[must_use]
#[inline(always)]
pub const fn is_loopback_words(words: Words) -> bool {
    match words {
        [0, 0, 0, last] => last == ONE,
        [0, 0, PREFIX_MAPPED, v4] => u32::from_be(v4) >> 24 == 127,
        _ => false,
    }
}

/// [`is_group`] on words.
#[must_use]
#[inline(always)]
pub const fn is_group_words(words: Words) -> bool {
    match words {
        [0, 0, PREFIX_MAPPED, v4] => v4 == u32::MAX || u32::from_be(v4) >> 28 == 0xe,
        [first, ..] => u32::from_be(first) >> 24 == 0xff,
    }
}

/// `a.b.c.d` as `::ffff:a.b.c.d`.
#[must_use]
pub const fn map_v4(v4: [u8; 4]) -> [u8; 16] {
    bytes(mapped(u32::from_ne_bytes(v4)))
}

/// Whether the address is IPv4-mapped.
#[must_use]
pub const fn is_mapped_v4(address: &[u8; 16]) -> bool {
    is_mapped(words(address))
}

/// The address that policy is about: NAT64 (`64:ff9b::/96`, RFC 6052) is judged as the IPv4 address
/// inside it; everything else stands for itself.
#[must_use]
pub const fn policy_address(address: [u8; 16]) -> [u8; 16] {
    bytes(policy_words(words(&address)))
}

/// The address that a socket call really reaches: Linux sends what is meant for the unspecified
/// address (`0.0.0.0`, `::`) to this host (`ip_route_output_key_hash_rcu`, `__ip6_datagram_connect`).
#[must_use]
pub const fn destination(address: [u8; 16]) -> [u8; 16] {
    bytes(destination_words(words(&address)))
}

/// Whether the address is `0.0.0.0` or `::`.
#[must_use]
pub const fn is_unspecified(address: &[u8; 16]) -> bool {
    is_unspecified_words(words(address))
}

/// Whether the address is in `127.0.0.0/8` or is `::1`.
#[must_use]
pub const fn is_loopback(address: &[u8; 16]) -> bool {
    is_loopback_words(words(address))
}

/// Whether the address is multicast (RFC 5771, RFC 4291) or `255.255.255.255`.
#[must_use]
pub const fn is_group(address: &[u8; 16]) -> bool {
    is_group_words(words(address))
}

/// Whether `address` lies in the network `base/prefix`.
#[must_use]
#[inline(always)]
pub fn in_network(address: &[u8; 16], base: &[u8; 16], prefix: u8) -> bool {
    // In two halves: the bpf target has no 128-bit shifts.
    let (high, low) = halves(address);
    let (base_high, base_low) = halves(base);
    match prefix {
        0 => true,
        1..=64 => (high ^ base_high) >> (64 - prefix) == 0,
        65..=128 => high == base_high && (low ^ base_low) >> (128 - prefix) == 0,
        _ => false,
    }
}

#[inline(always)]
const fn halves(address: &[u8; 16]) -> (u64, u64) {
    let [w, x, y, z] = words(address);
    (join(w, x), join(y, z))
}

#[inline(always)]
const fn join(high: u32, low: u32) -> u64 {
    ((u32::from_be(high) as u64) << 32) | u32::from_be(low) as u64
}
