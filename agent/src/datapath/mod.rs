//! The kernel side of the agent: loads and attaches the programs and keeps their maps.
//!
//! Owns every map and link, and all `unsafe` of the agent. One task owns a [`Datapath`]; reading events
//! and counters is separate ([`Events`], [`Counts`]). Never decides anything about policy.
//!
//! Invariants: programs are attached after their maps are filled; a policy becomes active as a whole
//! ([`Tables`]); whatever is pinned stays when the agent ends.

pub mod answers;
mod counts;
pub mod destroy;
pub mod detach;
mod diag;
mod error;
mod events;
pub mod fds;
pub mod features;
mod flow_map;
pub mod frames;
mod guarded;
pub mod heap;
mod identities;
mod kernel_log;
mod links;
mod load;
pub mod local_addresses;
pub mod lock;
mod maps;
pub mod mount;
mod netlink;
mod netns;
pub mod offsets;
pub mod pins;
pub mod poll;
mod ring;
mod settings;
mod sockets;
pub mod survey;
mod syscall;
mod tables;

pub use counts::Counts;
pub use diag::FlowState;
pub use error::DatapathError;
pub use events::Events;
pub(crate) use events::fuzz as fuzz_events;
pub use flow_map::{FlowMap, key_of};
pub use frames::Frames;
pub use identities::Identities;
pub use kernel_log::KernelLog;
pub use links::{HOOKS, Link, SOCKET, every as every_hook};
pub use load::Options;
pub use ring::Left;
pub use sockets::Sockets;
pub use tables::Tables;

use std::collections::BTreeSet;

use ringfence_common::abi::{Answering, FailsafeEntry, Settings};
use ringfence_policy::compile::Compiled;

use self::{load::Loaded, lock::PinLock, pins::Keeper, settings::Configured};

/// Programs, links and the maps that one task writes.
pub struct Datapath {
    options: Options,
    loaded: Loaded,
    links: Vec<Link>,
    pins: Keeper,
    warnings: Vec<String>,
    /// Not in force yet.
    configured: Option<Configured>,
    /// Policy.
    pub tables: Tables,
    /// Identities.
    pub identities: Identities,
    /// Existing sockets.
    pub sockets: Sockets,
}

impl Datapath {
    /// Loads the programs and opens their maps; what an earlier agent pinned is taken over. Nothing is
    /// attached yet. `lock` is that on the pin directory.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn open(options: Options, lock: PinLock) -> Result<Self, DatapathError> {
        let loaded = load::load(&options)?;
        let directory = options.directory();
        let mut warnings = load::other_sizes(&options)?;
        warnings.extend(
            loaded.unseen().map(|error| {
                format!("sockets that read packets of others are not refused: {error}")
            }),
        );
        Ok(Self {
            tables: Tables::open(&directory)?,
            identities: Identities::open(&directory)?,
            sockets: Sockets::open(&directory)?,
            loaded,
            links: Vec::new(),
            pins: Keeper::new(&directory, lock)?,
            warnings,
            configured: None,
            options,
        })
    }

    /// What of the configuration is not as it says, or not as it was; one sentence each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Directory of the pins.
    #[must_use]
    pub fn directory(&self) -> std::path::PathBuf {
        self.options.directory()
    }

    /// The settings that come into force with the next policy.
    pub fn configure(&mut self, settings: Settings, failsafe: &[FailsafeEntry]) {
        self.configured = Some(Configured {
            settings,
            failsafe: failsafe.to_vec(),
        });
    }

    /// Makes `compiled` the policy in force, with the settings that were made for it. On an error policy and
    /// settings of before stay in force.
    ///
    /// # Errors
    /// As [`Tables::apply`].
    pub fn apply(&mut self, compiled: &Compiled) -> Result<(), DatapathError> {
        let Some(next) = self.configured.clone() else {
            return self.tables.apply(compiled).map(drop);
        };
        let directory = self.directory();
        let before = Configured::held(&directory)?;
        before.with_failsafe_of(&next).write(&directory)?;
        let same = before.judges_as(&next) || !before.is_of_an_agent();
        let applied = if same {
            self.tables.apply(compiled)
        } else {
            self.tables.apply(&next.spelled_out(compiled))
        };
        if let Err(error) = applied {
            before.write(&directory)?;
            if next.lets_pass_more_than(&before) {
                // What the list that is refused let in meanwhile is not believed any more.
                self.tables.renew()?;
            }
            return Err(error);
        }
        next.write(&directory)?;
        self.configured = None;
        if same && !before.lets_pass_more_than(&next) {
            return Ok(());
        }
        // What was found meanwhile by the settings or the list of before is not believed any more.
        self.tables.apply(compiled).map(drop)
    }

    /// Attaches every hook; when it returns, enforcement is in place.
    ///
    /// # Errors
    /// [`DatapathError::Attach`], [`DatapathError::Cgroup`] or [`DatapathError::Pin`].
    pub fn attach(&mut self) -> Result<(), DatapathError> {
        let mut left = BTreeSet::new();
        self.links = self.loaded.attach(&self.options, &mut left)?;
        self.warnings
            .extend(guarded::lost(&self.options.cgroup_root, &left));
        Ok(())
    }

    /// Pins again what someone else has unpinned; answers how many pins were missing.
    ///
    /// # Errors
    /// [`DatapathError::Mount`], [`DatapathError::Lock`] or [`DatapathError::Pin`].
    pub fn restore_pins(&mut self) -> Result<usize, DatapathError> {
        let directory = self.directory();
        self.pins
            .restore(&self.options.pin_dir, &directory, &self.links)
    }

    /// Ends the enforcement of agents with another ABI at the same pin directory; the answer says which.
    ///
    /// # Errors
    /// [`DatapathError::Pin`].
    pub fn retire_others(&mut self) -> Result<Vec<std::path::PathBuf>, DatapathError> {
        let mut left = BTreeSet::new();
        let retired = load::retire_others(&self.options, &mut left)?;
        self.warnings
            .extend(guarded::lost(&self.options.cgroup_root, &left));
        Ok(retired)
    }

    /// Attaches the optional tracepoint on executions.
    ///
    /// # Errors
    /// Why it could not be attached.
    pub fn watch_executions(&mut self) -> Result<(), String> {
        self.loaded.watch_executions()
    }

    /// How the programs answer what is refused.
    #[must_use]
    pub const fn answering(&self) -> Answering {
        self.options.answering
    }

    /// The refused packets that may be answered; there is one such reader.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn refused(&mut self) -> Result<answers::Refused, DatapathError> {
        self.loaded.refused()
    }

    /// What keeps frames from going past the hooks. Nothing new is covered yet.
    ///
    /// # Errors
    /// [`DatapathError::Pin`] or [`DatapathError::Cgroup`].
    pub fn frames(&self) -> Result<Frames, DatapathError> {
        let program = self.loaded.frame()?;
        Frames::open(&self.directory(), program, &self.options.cgroup_root)
    }

    /// The debug messages of the programs; they are sent when [`Options::debug`] asks for them.
    ///
    /// # Errors
    /// Why they can't be read.
    pub fn kernel_log(&mut self) -> Result<KernelLog, String> {
        self.loaded.kernel_log()
    }

    /// The attached hooks.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }
}
