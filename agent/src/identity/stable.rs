//! A hash that every build of the agent agrees on.
//!
//! Class numbers are in pinned maps and in the storage of sockets, which an upgraded agent takes over: with other
//! numbers it would have to give sockets of classes with groups their owner anew. `DefaultHasher` may change with the compiler.

use std::hash::Hasher;

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a, 64 bits (draft-eastlake-fnv). What it is given comes from policies: nobody gains by a collision, which
/// [`super::classes::Classes`] evades.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stable(u64);

impl Stable {
    /// Of nothing yet.
    pub const fn new() -> Self {
        Self(OFFSET)
    }
}

impl Hasher for Stable {
    fn finish(&self) -> u64 {
        // The low half is what counts.
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_function() {
        for (text, expected) in [
            ("", OFFSET),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            let mut hasher = Stable::new();
            hasher.write(text.as_bytes());
            assert_eq!(hasher.0, expected, "{text:?}");
        }
    }
}
