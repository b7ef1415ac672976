//! A valid policy and what follows from it for identities, into the kernel.

use std::sync::Arc;

use ringfence_policy::compile::{Compilation, Compiled};

use super::{Candidate, Engine};
use crate::{
    datapath::DatapathError,
    identity::{Asker, OnTie, Subordinates, Tables, adopt},
};

impl Engine {
    /// Puts a valid policy into force. While identities change, the tables of identities that go are
    /// kept: a process that still has an old one is judged by its old policy, not as unselected.
    pub(super) fn enforce(&mut self, new: Candidate, on_tie: OnTie) -> Result<(), String> {
        let Compilation {
            set,
            identities,
            compiled,
            ..
        } = &new.compilation;
        self.resolver
            .set_workloads(&set.workloads, identities, on_tie)
            .map_err(|error| error.to_string())?;
        let held = self.held();
        let result = self.write(compiled);
        if let Err(error) = result {
            if self.in_force {
                self.restore();
            } else {
                self.leave(&held);
            }
            return Err(error);
        }
        self.in_force = true;
        self.parsed = new.parsed;
        self.compilation = new.compilation;
        self.lint = new.lint;
        self.warnings = new.warnings;
        self.scripts = new.scripts;
        Ok(())
    }

    /// Puts the policy before back into force, after a new one could not be written whole.
    fn restore(&mut self) {
        let Compilation {
            set, identities, ..
        } = &self.compilation;
        let restored = self
            .resolver
            .set_workloads(&set.workloads, identities, OnTie::Deny);
        if let Err(error) = restored {
            tracing::error!(%error, "the workloads before can't be restored");
        }
        // Unknown: everything is compared with the maps again.
        self.written = None;
        if let Err(error) = self.datapath.tables.apply(&self.compilation.compiled) {
            tracing::error!(%error, "the policy before can't be restored");
        }
        if let Err(error) = self.write_identities() {
            tracing::error!(error, "the identities before can't be restored");
        }
    }

    /// Leaves the policy of an agent before in force, after the first one of this process could not be written
    /// whole: identities are again who they were.
    fn leave(&mut self, held: &Tables) {
        if let Err(error) = self.put(held.clone()) {
            tracing::error!(
                error,
                "the identities of the agent before can't be restored"
            );
        }
        self.written = None;
    }

    /// Writes policy and identities. Who becomes someone else is pending while the policy changes, so that
    /// nobody is judged by the new one as who he was, or by the old one as who he will be.
    fn write(&mut self, compiled: &Compiled) -> Result<(), String> {
        let text = |error: DatapathError| error.to_string();
        let Some(way) = self.held().on_the_way_to(self.resolver.tables()) else {
            self.datapath.apply(compiled).map_err(text)?;
            return self.write_identities();
        };
        self.put(way)?;
        self.datapath.apply(compiled).map_err(text)?;
        self.put(self.resolver.tables().clone())?;
        // Verdicts and owners that were found on the way are not believed any more.
        let _ = self.datapath.tables.apply(compiled).map_err(text)?;
        self.adopt_sockets();
        Ok(())
    }

    /// Brings the identity maps in line with the resolver. Where someone becomes someone else, everybody is
    /// judged anew.
    ///
    /// # Errors
    /// A map is full or can't be written.
    fn write_identities(&mut self) -> Result<(), String> {
        if self.written.as_deref() == Some(self.resolver.tables()) {
            return Ok(());
        }
        let moves = self.held().on_the_way_to(self.resolver.tables()).is_some();
        self.put(self.resolver.tables().clone())?;
        if moves {
            let again = self.datapath.tables.apply(&self.compilation.compiled);
            let _ = again.map_err(|error| error.to_string())?;
            self.adopt_sockets();
        }
        Ok(())
    }

    /// The same, where nobody waits for the outcome: a failure is logged, and the next change tries again.
    pub(super) fn follow_identities(&mut self) {
        if let Err(error) = self.write_identities() {
            tracing::error!(error, "identities");
            self.unwritten = Some(error);
        }
    }

    /// What the identity maps hold.
    fn held(&self) -> Arc<Tables> {
        let written = self.written.clone();
        written.unwrap_or_else(|| Arc::new(self.datapath.identities.held()))
    }

    fn put(&mut self, tables: Tables) -> Result<(), String> {
        self.written = None;
        self.datapath
            .identities
            .apply(&tables)
            .map_err(|error| error.to_string())?;
        self.written = Some(Arc::new(tables));
        self.unwritten = None;
        Ok(())
    }

    /// Gives sockets that exist their owners.
    pub fn adopt_sockets(&mut self) {
        // A process that runs already is judged before its sockets get an owner.
        let processes = adopt::processes(&self.resolver);
        let subordinates = Subordinates::of_host();
        for process in &processes {
            if let Some(key) = process.exe {
                let asker = Asker::of(process.uid, process.cgroup_id, &subordinates);
                let _ = self.resolver.seen(key, process.tgid, asker);
            }
        }
        if let Err(error) = self.put(self.resolver.tables().clone()) {
            tracing::error!(error, "identities");
            self.unwritten = Some(error);
        }
        let adopted = self.datapath.sockets.adopt(&self.resolver, processes);
        if adopted == 0 {
            tracing::debug!(adopted, "existing sockets");
        } else {
            tracing::info!(adopted, "existing sockets");
        }
    }
}
