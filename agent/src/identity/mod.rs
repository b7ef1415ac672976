//! Identity: which workload a process is.
//!
//! Owns the cgroup tree below the guarded root, what container runtimes say of cgroups, the executables
//! that selectors name and the tables by which the kernel turns (cgroup, executable, user, groups) into an
//! identity. Pure user space: it
//! computes what the kernel maps must hold and never writes them.
//!
//! Data path: [`root`] -> `tree` + workloads -> `matching` (which workloads a cgroup may hold)
//! -> `placement` (cgroup entries and process classes) -> `executables` and `processes` -> [`Tables`]. [`Resolver`] is the single owner of all of it;
//! [`adopt`] lists the processes whose sockets existed before the agent.
//!
//! Invariants:
//! - Every known cgroup has an entry; the guarded root always has one.
//! - A class number stands for one meaning: it is derived from what the class means, so that it is
//!   the same after a restart and is not reused for something else.
//! - An executable is in the tables only after it was judged. What can't be judged stays pending.
//! - A container's cgroup stands for somebody only after its runtime has said what it is.
//! - Two equally specific workloads never decide by chance: [`IdentityError::Tie`] when workloads
//!   are set, the identity `UNKNOWN` (never allowed) and a [`Tie`] where it comes up later.

mod absent;
pub mod adopt;
mod asker;
mod below;
mod classes;
mod containers;
mod error;
mod executables;
mod file;
mod fill;
mod groups;
mod hash;
mod hasher;
mod inventory;
pub mod live;
mod matching;
mod mounts;
mod names;
mod placement;
mod processes;
mod resolver;
pub mod root;
mod scripts;
mod seldom;
mod spec;
mod specificity;
mod stable;
mod subordinate;
mod systemd;
mod tables;
mod ties;
mod tree;
mod watch;
pub mod why;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

pub(crate) use self::{mounts::fuzz as fuzz_mounts, scripts::fuzz as fuzz_script};
pub use absent::absent;
pub use asker::Asker;
pub use containers::{ContainerAnswer, ContainerFacts, ContainerQuestion};
pub use error::IdentityError;
pub use executables::{Forgotten, HASH_LIMIT, HASH_RATE};
pub use groups::{Crowd, Groups};
pub use inventory::Inventory;
pub use resolver::{Foreseen, Resolver};
pub use scripts::scripts;
pub use subordinate::Subordinates;
pub use tables::Tables;
pub use ties::{OnTie, Tie};
pub use tree::{DEEPEST, MOST_CGROUPS, MOST_DELEGATED};
