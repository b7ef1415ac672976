//! Containers between the runtimes and the resolver: an answer is believed only where the container's init
//! process is in the cgroup that was asked about; what was believed is kept on disk, so that a restart
//! does not depend on a runtime that is down: `containers.cache` in the state directory,
//! [sealed](crate::sealed).

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    time,
};

use crate::{
    identity::{ContainerAnswer, ContainerFacts, Resolver, adopt},
    runtime::{Answer, Outcome, Question, RuntimeState},
    sealed::{Seal, SealError},
};

const SEAL: Seal = Seal {
    file: "containers.cache",
    header: "ringfence-containers-cache 1",
};
/// Changes with every boot, and so do the numbers of cgroups.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The task that asks the container runtimes, from outside.
pub struct Runtimes {
    /// Questions for it.
    pub questions: mpsc::Sender<Question>,
    /// Its answers.
    pub answers: mpsc::Receiver<Answer>,
    /// How the runtimes are doing.
    pub states: watch::Receiver<Vec<RuntimeState>>,
}

/// What is wrong with the copy.
#[derive(Debug, Error)]
pub enum KeptError {
    /// It cannot be read, or is damaged.
    #[error("{0}; it is ignored, and the container runtimes are asked again")]
    Ignored(#[source] SealError),
    /// It cannot be written.
    #[error(
        "{0}; a restart asks the container runtimes again: check the state directory and its free space"
    )]
    NotKept(#[source] SealError),
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Body {
    boot: String,
    containers: BTreeMap<u64, ContainerFacts>,
}

/// Keeps what runtimes have said of the containers in these cgroups.
///
/// # Errors
/// The state directory cannot be written; what was kept before is then still whole.
pub fn save(state_dir: &Path, containers: BTreeMap<u64, ContainerFacts>) -> Result<(), KeptError> {
    let body = Body {
        boot: boot_id(),
        containers,
    };
    SEAL.save(state_dir, &body).map_err(KeptError::NotKept)
}

/// What was kept since the host started.
///
/// # Errors
/// The file cannot be read or is not what [`save`] wrote.
pub fn load(state_dir: &Path) -> Result<BTreeMap<u64, ContainerFacts>, KeptError> {
    let judge = |body: Body| {
        let current = body.boot == boot_id() && !body.boot.is_empty();
        Ok(if current {
            body.containers
        } else {
            BTreeMap::new()
        })
    };
    let kept = SEAL.load(state_dir, judge).map_err(KeptError::Ignored)?;
    Ok(kept.unwrap_or_default())
}

/// Empty where the kernel does not say; nothing is believed then.
fn boot_id() -> String {
    fs::read_to_string(BOOT_ID)
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// What an answer about a cgroup is worth.
#[must_use]
pub fn judge(resolver: &Resolver, cgroup: u64, outcome: Outcome) -> ContainerAnswer {
    let (pid, facts) = match outcome {
        Outcome::Absent => return ContainerAnswer::IsNot,
        Outcome::Failed(error) => {
            tracing::debug!(cgroup, error, "container");
            return ContainerAnswer::NotNow;
        }
        Outcome::Found { pid: 0, .. } => return ContainerAnswer::NotNow,
        Outcome::Found { pid, facts } => (pid, facts),
    };
    let Some(asked) = resolver.cgroup_path(cgroup) else {
        return ContainerAnswer::IsNot;
    };
    match adopt::cgroup_of_process(resolver, pid) {
        Some(found) if found.starts_with(asked) => ContainerAnswer::Is(facts),
        Some(_) => ContainerAnswer::IsNot,
        // It has ended since.
        None => ContainerAnswer::NotNow,
    }
}

/// Waits until a question is due and there is room for it.
pub async fn due(at: Option<Instant>, questions: &mpsc::Sender<Question>) {
    /// Between two looks while nothing is due.
    const IDLE: Duration = Duration::from_secs(3600);
    match at {
        Some(at) => time::sleep_until(at.into()).await,
        None => time::sleep(IDLE).await,
    }
    // Closed only when the agent ends.
    let _ = questions.reserve().await;
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn containers_are_kept_until_the_host_starts_anew() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(load(state.path()).unwrap(), BTreeMap::new());
        let facts: ContainerFacts = [("container.name".to_owned(), "web".to_owned())].into();
        let kept = BTreeMap::from([(7, facts)]);
        save(state.path(), kept.clone()).unwrap();
        assert_eq!(load(state.path()).unwrap(), kept);
        let other = Body {
            boot: "another".into(),
            containers: kept,
        };
        SEAL.save(state.path(), &other).unwrap();
        assert_eq!(load(state.path()).unwrap(), BTreeMap::new());
        fs::write(state.path().join(SEAL.file), "x").unwrap();
        assert!(load(state.path()).is_err());
    }
}
