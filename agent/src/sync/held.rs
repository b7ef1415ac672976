//! The policy that the host holds.

use ringfence_common::abi::identity::is_workload;
use ringfence_policy::model::{Document, Identities};
use ringfence_proto::{
    checksum::{self, checksum},
    limits,
};

/// The last policy that was applied, or that is about to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The controller's generation, never 0.
    pub generation: u64,
    /// Ordered by name, names unique.
    pub documents: Vec<Document>,
    /// Numbers unique.
    pub identities: Identities,
}

impl Held {
    /// Checksum as the controller computes it.
    #[must_use]
    pub fn checksum(&self) -> [u8; checksum::LENGTH] {
        checksum(
            self.documents
                .iter()
                .map(|document| (document.name.as_str(), &*document.text)),
            self.identities
                .iter()
                .map(|(workload, identity)| (workload.as_str(), *identity)),
        )
    }

    /// Checks names, numbers, order and sizes.
    ///
    /// # Errors
    /// The first thing found, in words.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.generation == 0 {
            return Err("generation 0 is not a generation".into());
        }
        self.check_sizes()?;
        let mut previous: Option<&str> = None;
        for Document { name, .. } in &self.documents {
            if !limits::is_document_name(name) {
                return Err(format!(
                    "document name {:?} is not one printable component of a path",
                    clip(name)
                ));
            }
            if previous >= Some(name.as_str()) {
                return Err(format!("document {name:?} is there twice or out of order"));
            }
            previous = Some(name);
        }
        let mut seen = std::collections::HashMap::with_capacity(self.identities.len());
        for (workload, identity) in &self.identities {
            if !limits::is_name(workload) {
                return Err(format!(
                    "workload name {:?} is empty, too long or not printable",
                    clip(workload)
                ));
            }
            if !is_workload(*identity) {
                return Err(format!(
                    "identity {identity} of workload {workload:?} is not in 256..16777216"
                ));
            }
            if let Some(other) = seen.insert(*identity, workload) {
                return Err(format!(
                    "workloads {other:?} and {workload:?} share identity {identity}"
                ));
            }
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), String> {
        let documents = self.documents.len();
        if documents > limits::MAX_DOCUMENTS {
            return Err(format!(
                "{documents} documents, at most {} are taken",
                limits::MAX_DOCUMENTS
            ));
        }
        let identities = self.identities.len();
        if identities > limits::MAX_IDENTITIES {
            return Err(format!(
                "{identities} identities, at most {} are taken",
                limits::MAX_IDENTITIES
            ));
        }
        let bytes: usize = self
            .documents
            .iter()
            .map(|document| document.name.len() + document.text.len())
            .chain(self.identities.keys().map(String::len))
            .sum();
        if bytes > limits::MAX_UPDATE_BYTES {
            return Err(format!(
                "{bytes} bytes of policy, at most {} are taken",
                limits::MAX_UPDATE_BYTES
            ));
        }
        Ok(())
    }
}

/// The beginning of a name that may be huge, for a message.
pub(super) fn clip(name: &str) -> String {
    name.chars().take(64).collect()
}
