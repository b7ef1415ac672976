//! Checksum of a whole policy: controller and agent compute it here and nowhere else.
//!
//! The input is described byte by byte in `docs/wire.md`. It depends on the contents only, never on
//! the order in which documents or identities are given.

use sha2::{Digest as _, Sha256};

/// Length of a checksum in bytes.
pub const LENGTH: usize = 32;

/// First bytes of the input, so that the sum of another format can never be equal.
const DOMAIN: &[u8] = b"ringfence-policy-v1\0";

/// SHA-256 over documents (name, text) and identities (workload, number).
#[must_use]
pub fn checksum<'a>(
    documents: impl IntoIterator<Item = (&'a str, &'a str)>,
    identities: impl IntoIterator<Item = (&'a str, u32)>,
) -> [u8; LENGTH] {
    let mut documents: Vec<_> = documents.into_iter().collect();
    documents.sort_unstable();
    let mut identities: Vec<_> = identities.into_iter().collect();
    identities.sort_unstable();

    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    number(&mut hash, documents.len());
    for (name, text) in documents {
        string(&mut hash, name);
        string(&mut hash, text);
    }
    number(&mut hash, identities.len());
    for (workload, identity) in identities {
        string(&mut hash, workload);
        hash.update(identity.to_be_bytes());
    }
    hash.finalize().into()
}

fn string(hash: &mut Sha256, text: &str) {
    number(hash, text.len());
    hash.update(text.as_bytes());
}

fn number(hash: &mut Sha256, number: usize) {
    hash.update((number as u64).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::checksum;

    #[test]
    fn order_does_not_count() {
        let one = checksum([("a", "1"), ("b", "2")], [("w", 256), ("x", 257)]);
        let two = checksum([("b", "2"), ("a", "1")], [("x", 257), ("w", 256)]);
        assert_eq!(one, two);
    }

    #[test]
    fn bytes_cannot_move_between_fields() {
        let sums = [
            checksum([("ab", "c")], []),
            checksum([("a", "bc")], []),
            checksum([("a", "b"), ("c", "")], []),
            checksum([], [("abc", 256)]),
            checksum([], []),
        ];
        for (index, sum) in sums.iter().enumerate() {
            assert!(!sums.iter().skip(index + 1).any(|other| other == sum));
        }
    }

    /// The vector of docs/wire.md: a change here breaks every agent in the field.
    #[test]
    fn vector_of_the_documentation() {
        let sum = checksum([("a.toml", "x = 1\n")], [("web", 256)]);
        let hex = sum.iter().fold(String::new(), |mut hex, byte| {
            let written = write!(hex, "{byte:02x}");
            assert!(written.is_ok());
            hex
        });
        assert!(include_str!("../../docs/wire.md").contains(&hex), "{hex}");
    }
}
