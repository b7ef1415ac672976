//! Judges one update of the controller against what the host holds. Pure.

use std::{collections::BTreeMap, sync::Arc};

use ringfence_policy::model::{Document, Identities};
use ringfence_proto::v1::{
    Delta, PolicyDocument, Snapshot, SyncResponse, WorkloadIdentity, sync_response::Update,
};
use thiserror::Error;

use super::held::{Held, clip};

/// What an update amounts to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verified {
    /// A newer policy, to be applied.
    New(Held),
    /// The policy held, once more.
    AlreadyHeld,
}

/// Why an update is refused; the text goes to the controller and into the log.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum Refusal {
    #[error(
        "generation {offered} is not newer than generation {held} that this host holds, and differs from it: was the \
         controller's state directory lost or restored from an old backup? Restore the newest one, or remove policy.cache \
         on the agents"
    )]
    NotNewer { offered: u64, held: u64 },
    #[error(
        "the delta builds on generation {base}, this host holds generation {held}; send a snapshot"
    )]
    WrongBase { base: u64, held: u64 },
    #[error("the delta does not fit: {0}; send a snapshot")]
    Delta(String),
    #[error(
        "workload {workload:?} had identity {held} and now has {offered}: was the controller's state directory lost? \
         Restore it from the backup"
    )]
    Renumbered {
        workload: String,
        held: u32,
        offered: u32,
    },
    #[error(
        "identity {identity} belonged to workload {held:?} and is now given to {offered:?}: was the controller's state \
         directory lost? Restore it from the backup"
    )]
    Reused {
        identity: u32,
        held: String,
        offered: String,
    },
    #[error("malformed policy: {0}; is something other than a Ringfence controller answering?")]
    Malformed(String),
    #[error("the checksum does not match the policy; send a snapshot")]
    Checksum,
}

/// Builds the policy after the update.
///
/// # Errors
/// `None` when the response holds no update at all (a protocol error, not an answerable update),
/// else why it is refused.
pub(super) fn verify(
    held: Option<&Held>,
    response: SyncResponse,
) -> Result<Verified, Option<Refusal>> {
    let SyncResponse {
        generation,
        checksum,
        update,
        ..
    } = response;
    let Some(update) = update else {
        return Err(None);
    };
    if let Some(held) = held
        && generation <= held.generation
    {
        if checksum == held.checksum() {
            return Ok(Verified::AlreadyHeld);
        }
        return Err(Some(Refusal::NotNewer {
            offered: generation,
            held: held.generation,
        }));
    }
    let policy = built(held, generation, update)?;
    if checksum != policy.checksum() {
        return Err(Some(Refusal::Checksum));
    }
    Ok(Verified::New(policy))
}

/// What an update amounts to, whatever its checksum.
pub(super) fn built(held: Option<&Held>, generation: u64, update: Update) -> Result<Held, Refusal> {
    let policy = match update {
        Update::Snapshot(snapshot) => from_snapshot(generation, snapshot)?,
        Update::Delta(delta) => from_delta(generation, delta, held)?,
    };
    policy.check().map_err(Refusal::Malformed)?;
    if let Some(held) = held {
        same_numbers(&held.identities, &policy.identities)?;
    }
    Ok(policy)
}

fn from_snapshot(generation: u64, snapshot: Snapshot) -> Result<Held, Refusal> {
    let mut identities = Identities::new();
    add_identities(&mut identities, snapshot.identities)?;
    let mut documents: Vec<Document> = snapshot.documents.into_iter().map(document).collect();
    documents.sort_unstable();
    Ok(Held {
        generation,
        documents,
        identities,
    })
}

fn from_delta(generation: u64, delta: Delta, held: Option<&Held>) -> Result<Held, Refusal> {
    let held_generation = held.map_or(0, |held| held.generation);
    let Some(held) = held.filter(|held| held.generation == delta.base) else {
        return Err(Refusal::WrongBase {
            base: delta.base,
            held: held_generation,
        });
    };
    let mut changed: BTreeMap<String, Arc<str>> = BTreeMap::new();
    for PolicyDocument { name, text } in delta.changed {
        if let Some(_other) = changed.insert(name.clone(), text.into()) {
            return Err(Refusal::Delta(format!(
                "document {:?} is changed twice",
                clip(&name)
            )));
        }
    }
    let mut documents: BTreeMap<String, Arc<str>> = held
        .documents
        .iter()
        .map(|document| (document.name.clone(), Arc::clone(&document.text)))
        .collect();
    for name in delta.removed {
        let was = documents.remove(&name);
        if was.is_none() || changed.contains_key(&name) {
            return Err(Refusal::Delta(format!(
                "document {:?} is removed, but changed too or not there",
                clip(&name)
            )));
        }
    }
    documents.append(&mut changed);
    let mut identities = held.identities.clone();
    add_identities(&mut identities, delta.identities)?;
    Ok(Held {
        generation,
        documents: documents
            .into_iter()
            .map(|(name, text)| Document { name, text })
            .collect(),
        identities,
    })
}

fn document(document: PolicyDocument) -> Document {
    Document {
        name: document.name,
        text: document.text.into(),
    }
}

fn add_identities(to: &mut Identities, new: Vec<WorkloadIdentity>) -> Result<(), Refusal> {
    for WorkloadIdentity { workload, identity } in new {
        if let Some(before) = to.insert(workload.clone(), identity) {
            return Err(Refusal::Malformed(format!(
                "workload {:?} has two identities, {before} and {identity}",
                clip(&workload)
            )));
        }
    }
    Ok(())
}

/// Numbers are in the kernel and on other hosts: no workload changes its number, no number its workload.
fn same_numbers(held: &Identities, offered: &Identities) -> Result<(), Refusal> {
    for (workload, identity) in held {
        if let Some(now) = offered.get(workload)
            && now != identity
        {
            return Err(Refusal::Renumbered {
                workload: workload.clone(),
                held: *identity,
                offered: *now,
            });
        }
    }
    let owners: BTreeMap<u32, &String> = held
        .iter()
        .map(|(workload, identity)| (*identity, workload))
        .collect();
    for (workload, identity) in offered {
        if let Some(owner) = owners.get(identity)
            && *owner != workload
        {
            return Err(Refusal::Reused {
                identity: *identity,
                held: (*owner).clone(),
                offered: workload.clone(),
            });
        }
    }
    Ok(())
}
