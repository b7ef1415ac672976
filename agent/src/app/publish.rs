//! What the owning tasks tell the others: the latest value of each, by `watch`.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    api::{PolicyView, Status},
    flow::Names,
    identity::{Inventory, Tables},
    sync,
};

/// Sending ends.
#[derive(Debug)]
pub struct Published {
    status: watch::Sender<Arc<Status>>,
    policy: watch::Sender<Arc<PolicyView>>,
    names: watch::Sender<Arc<Names>>,
    cgroups: watch::Sender<Inventory>,
    tables: watch::Sender<Arc<Tables>>,
    sync: watch::Sender<sync::State>,
}

impl Published {
    /// Starts with this status and nothing else.
    #[must_use]
    pub fn new(status: Status) -> Self {
        Self {
            status: watch::Sender::new(Arc::new(status)),
            policy: watch::Sender::new(Arc::default()),
            names: watch::Sender::new(Arc::default()),
            cgroups: watch::Sender::new(Inventory::default()),
            tables: watch::Sender::new(Arc::default()),
            sync: watch::Sender::new(sync::State::default()),
        }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Arc<Status>> {
        self.status.subscribe()
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> watch::Receiver<Arc<PolicyView>> {
        self.policy.subscribe()
    }

    /// Names of identities and rules.
    #[must_use]
    pub fn names(&self) -> watch::Receiver<Arc<Names>> {
        self.names.subscribe()
    }

    /// Paths of cgroups.
    #[must_use]
    pub fn cgroups(&self) -> watch::Receiver<Inventory> {
        self.cgroups.subscribe()
    }

    /// What the identity maps hold.
    #[must_use]
    pub fn tables(&self) -> watch::Receiver<Arc<Tables>> {
        self.tables.subscribe()
    }

    /// How synchronisation is doing.
    #[must_use]
    pub fn sync_state(&self) -> sync::State {
        self.sync.borrow().clone()
    }

    /// For the task that synchronises.
    #[must_use]
    pub fn sync_sender(&self) -> watch::Sender<sync::State> {
        self.sync.clone()
    }

    /// Changes the status.
    pub fn update_status(&self, change: impl FnOnce(&mut Status)) {
        self.status
            .send_modify(|status| change(Arc::make_mut(status)));
    }

    /// Replaces the identity tables, unless they are these already.
    pub fn set_tables(&self, tables: &Arc<Tables>) {
        let _ = self.tables.send_if_modified(|shown| {
            let new = !Arc::ptr_eq(shown, tables);
            shown.clone_from(tables);
            new
        });
    }

    /// Replaces policy and names.
    pub fn set_policy(&self, view: PolicyView) {
        self.names.send_modify(|names| {
            *names = Arc::new(names.next(&view.set, &view.identities, &view.compiled));
        });
        drop(self.policy.send_replace(Arc::new(view)));
    }

    /// Replaces the cgroups: all of them, and those of each workload.
    pub fn set_cgroups(&self, inventory: &Inventory) {
        drop(self.cgroups.send_replace(inventory.clone()));
        self.policy
            .send_modify(|view| Arc::make_mut(view).cgroups = inventory.clone());
    }
}
