//! One form for every address: IPv6, with IPv4 mapped.

/// `a.b.c.d` as `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2).
#[must_use]
#[inline(always)]
pub const fn map_v4(v4: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = v4;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// Whether the first 12 bytes are those of an IPv4-mapped address.
#[must_use]
#[inline(always)]
pub const fn is_mapped_v4(address: &[u8; 16]) -> bool {
    matches!(address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..])
}

/// The address that policy is about: NAT64 (`64:ff9b::/96`, RFC 6052) is judged as the IPv4 address
/// inside it; everything else stands for itself.
#[must_use]
#[inline(always)]
pub const fn policy_address(address: [u8; 16]) -> [u8; 16] {
    match address {
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => map_v4([a, b, c, d]),
        other => other,
    }
}

/// The address that a socket call really reaches: Linux sends what is meant for the unspecified
/// address (`0.0.0.0`, `::`) to this host (`ip_route_output_key_hash_rcu`, `__ip6_datagram_connect`).
#[must_use]
#[inline(always)]
pub const fn destination(address: [u8; 16]) -> [u8; 16] {
    if is_unspecified(&address) {
        return if is_mapped_v4(&address) {
            map_v4([127, 0, 0, 1])
        } else {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
        };
    }
    address
}

/// Whether the address is `0.0.0.0` or `::`.
#[must_use]
#[inline(always)]
pub const fn is_unspecified(address: &[u8; 16]) -> bool {
    matches!(
        address,
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
            | [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]
    )
}

/// Whether the address is in `127.0.0.0/8` or is `::1`.
#[must_use]
#[inline(always)]
pub const fn is_loopback(address: &[u8; 16]) -> bool {
    matches!(
        address,
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, ..]
            | [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    )
}

/// Whether `address` lies in the network `base/prefix`.
#[must_use]
#[inline(always)]
pub fn in_network(address: &[u8; 16], base: &[u8; 16], prefix: u8) -> bool {
    let difference = u128::from_be_bytes(*address) ^ u128::from_be_bytes(*base);
    prefix == 0 || (prefix <= 128 && difference >> (128 - u32::from(prefix)) == 0)
}
