//! The first policy of a start: what the policy directory and the disk hold, else what was good last.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use ringfence_policy::model::Document;

use super::{
    documents,
    engine::Engine,
    last_good,
    refusals::Refusals,
    trial::{self, Trial},
};
use crate::{
    api::PolicySource,
    change,
    config::Config,
    sync::{Held, cache},
};

/// What is in force after [`first_policy`], seen from the policy directory.
#[derive(Debug)]
pub struct First {
    /// The documents of the directory, or why it is refused.
    pub found: Result<Vec<Document>, String>,
    /// Why the last good documents are in force instead.
    pub refusals: Refusals,
    /// The change that is on trial, which is in force instead.
    pub trial: Option<Trial>,
    /// What became of a change that was on trial.
    pub note: Option<String>,
}

/// Puts the first policy into force.
///
/// # Errors
/// The newest policy is refused and there is no earlier one that could stand in.
pub fn first_policy(engine: &mut Engine, config: &Config) -> anyhow::Result<First> {
    let state = &config.agent.state_dir;
    // Before the directory is read: a confirmed change may still have to be written.
    let trial::Found { resumed, mut note } = trial::at_start(state, &config.agent.policy_dir);
    let held = config.controller.as_ref().and_then(|_| cached(state));
    let source = if held.is_some() {
        PolicySource::Cache
    } else {
        PolicySource::Files
    };
    let last = last_good::load(state);
    // What can't be read was a policy: nothing is opened by mistake.
    let guarded = last.as_ref().map_or(true, |last| {
        last.as_ref().is_some_and(|documents| !documents.is_empty())
    });
    let found = documents::read(&config.agent.policy_dir, guarded);
    if let Some(journal) = resumed {
        let local = change::documents(&config.agent.policy_dir, &journal.after);
        let confirmed = journal.confirmed;
        let applied = if confirmed {
            engine.apply_again(held.clone(), local, source)
        } else {
            engine.apply(held.clone(), local, source)
        };
        match applied {
            Ok(()) => {
                let former = if confirmed {
                    Some(change::documents(&config.agent.policy_dir, &journal.before))
                } else {
                    last.ok().flatten().or_else(|| found.clone().ok())
                };
                return Ok(First {
                    found,
                    refusals: Refusals::default(),
                    trial: Some(Trial::resume(journal, former.unwrap_or_default())),
                    note,
                });
            }
            Err(error) if confirmed => {
                note = Some(format!(
                    "a confirmed change of policy is neither in the policy directory nor in force: {error}"
                ));
            }
            Err(error) => {
                note = Some(format!(
                    "the change that was on trial is rolled back: {error}"
                ));
                if let Err(error) = change::journal::remove(state) {
                    tracing::error!(%error, "policy");
                }
            }
        }
    }
    let newest = found
        .clone()
        .and_then(|local| engine.apply(held.clone(), local, source));
    let Err(error) = newest else {
        return Ok(First {
            found,
            refusals: Refusals::default(),
            trial: None,
            note,
        });
    };
    let last = match last {
        Ok(Some(last)) => last,
        Ok(None) => {
            return Err(anyhow!(error)).context("policy refused, and there is no earlier one");
        }
        Err(last) => return Err(anyhow!("{error}\n{last}")).context("policy refused"),
    };
    engine
        .apply_again(held, last, source)
        .map_err(|last| anyhow!("{error}\nand the last good policy is refused too: {last}"))
        .context("policy refused")?;
    let refusals = Refusals {
        files: Some(error),
        ..Refusals::default()
    };
    Ok(First {
        found,
        refusals,
        trial: None,
        note,
    })
}

fn cached(state_dir: &Path) -> Option<Held> {
    cache::load(state_dir).unwrap_or_else(|error| {
        tracing::error!(%error, "the controller's policy kept on disk is ignored");
        None
    })
}
