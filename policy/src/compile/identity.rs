//! Identities of a deployment without a controller: derived from the workload's name.

use std::collections::BTreeMap;

use ringfence_common::abi::{
    Identity,
    identity::{FIRST_CIDR, FIRST_WORKLOAD},
};
use sha2::{Digest, Sha256};

use super::CompileError;
use crate::model::{Identities, PolicySet};

/// The identity that a workload of this name has on every host: SHA-256 of the name, folded into
/// the range of workloads.
#[must_use]
pub fn derive_identity(name: &str) -> Identity {
    FIRST_WORKLOAD + hash(name.as_bytes()) % (FIRST_CIDR - FIRST_WORKLOAD)
}

/// Derives the identity of every workload.
///
/// # Errors
/// [`CompileError::IdentityCollision`] names two workloads whose names give the same number.
pub fn derive_identities(set: &PolicySet) -> Result<Identities, CompileError> {
    let mut taken = BTreeMap::<Identity, &str>::new();
    let mut identities = Identities::new();
    for workload in &set.workloads {
        let identity = derive_identity(&workload.name);
        if let Some(first) = taken.insert(identity, &workload.name) {
            return Err(CompileError::IdentityCollision {
                first: first.to_owned(),
                second: workload.name.clone(),
                identity,
            });
        }
        let _ = identities.insert(workload.name.clone(), identity);
    }
    Ok(identities)
}

/// The first four bytes of the SHA-256, big-endian.
pub(super) fn hash(bytes: &[u8]) -> u32 {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let [a, b, c, d, ..] = digest;
    u32::from_be_bytes([a, b, c, d])
}
