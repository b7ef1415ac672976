//! One numbered policy, and the way from one to the next.

use std::{cmp::Ordering, sync::Arc};

use prost::Message as _;
use ringfence_policy::model::{Document, Identities};
use ringfence_proto::{
    checksum::{self, checksum},
    limits,
    v1::{Delta, PolicyDocument, Snapshot, SyncResponse, WorkloadIdentity, sync_response::Update},
};

/// A valid policy with its generation.
#[derive(Debug)]
pub struct Version {
    /// Rises with every change.
    pub generation: u64,
    checksum: [u8; checksum::LENGTH],
    documents: Vec<Document>,
    identities: Identities,
    snapshot_bytes: usize,
    /// The change from the version before: computed once, sent to nearly every agent.
    step: Option<Delta>,
}

impl Version {
    /// `documents` are ordered by name.
    pub(super) fn new(generation: u64, documents: Vec<Document>, identities: Identities) -> Self {
        let checksum = sum(&documents, &identities);
        let mut version = Self {
            generation,
            checksum,
            documents,
            identities,
            snapshot_bytes: 0,
            step: None,
        };
        version.snapshot_bytes = version.snapshot(0).encoded_len();
        version
    }

    /// Prepares the change from the version before.
    #[must_use]
    pub(super) fn following(mut self, before: Option<&Arc<Self>>) -> Self {
        self.step = before.map(|before| self.since(before));
        self
    }

    /// Documents, ordered by name.
    #[must_use]
    pub fn documents(&self) -> &[Document] {
        &self.documents
    }

    /// Identity of every workload there ever was.
    #[must_use]
    pub const fn identities(&self) -> &Identities {
        &self.identities
    }

    /// Checksum of documents and identities.
    #[must_use]
    pub const fn checksum(&self) -> &[u8; checksum::LENGTH] {
        &self.checksum
    }

    /// Encoded size of the snapshot in bytes, a few bytes more or less for the nonce.
    #[must_use]
    pub const fn snapshot_bytes(&self) -> usize {
        self.snapshot_bytes
    }

    /// The whole policy.
    #[must_use]
    pub fn snapshot(&self, nonce: u64) -> SyncResponse {
        self.response(
            nonce,
            Update::Snapshot(Snapshot {
                documents: self.documents.iter().map(wire_document).collect(),
                identities: self.identities.iter().map(wire_identity).collect(),
            }),
        )
    }

    /// The change since `base`.
    #[must_use]
    pub fn delta(&self, nonce: u64, base: &Self) -> SyncResponse {
        let delta = match &self.step {
            Some(step) if step.base == base.generation => step.clone(),
            Some(_) | None => self.since(base),
        };
        self.response(nonce, Update::Delta(delta))
    }

    fn response(&self, nonce: u64, update: Update) -> SyncResponse {
        SyncResponse {
            generation: self.generation,
            nonce,
            checksum: self.checksum.to_vec(),
            update: Some(update),
            max_endpoints: u32::try_from(limits::MAX_ENDPOINTS).unwrap_or(u32::MAX),
        }
    }

    /// Walks both ordered lists side by side.
    fn since(&self, base: &Self) -> Delta {
        let mut delta = Delta {
            base: base.generation,
            identities: self
                .identities
                .iter()
                .filter(|(workload, _)| !base.identities.contains_key(*workload))
                .map(wire_identity)
                .collect(),
            ..Delta::default()
        };
        let mut old = base.documents.iter().peekable();
        let mut new = self.documents.iter().peekable();
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return delta,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.name.cmp(&new.name),
            };
            let before = if order.is_le() { old.next() } else { None };
            let after = if order.is_ge() { new.next() } else { None };
            match (before, after) {
                (Some(before), None) => delta.removed.push(before.name.clone()),
                (before, Some(after)) if before != Some(after) => {
                    delta.changed.push(wire_document(after));
                }
                (Some(_) | None, Some(_)) | (None, None) => {}
            }
        }
    }
}

pub(super) fn sum(documents: &[Document], identities: &Identities) -> [u8; checksum::LENGTH] {
    checksum(
        documents
            .iter()
            .map(|document| (document.name.as_str(), &*document.text)),
        identities
            .iter()
            .map(|(workload, identity)| (workload.as_str(), *identity)),
    )
}

fn wire_document(document: &Document) -> PolicyDocument {
    PolicyDocument {
        name: document.name.clone(),
        text: document.text.to_string(),
    }
}

fn wire_identity((workload, identity): (&String, &u32)) -> WorkloadIdentity {
    WorkloadIdentity {
        workload: workload.clone(),
        identity: *identity,
    }
}
