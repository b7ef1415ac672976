//! A directory of policy documents: which files of it count, and when they may have changed.
//!
//! Agent, controller and `ringfence policy check` read with the same eyes. Judging the documents is the
//! business of `ringfence_policy`; what becomes of a refusal is the caller's.

mod error;
mod read;
#[cfg(test)]
mod tests;
mod watch;

pub use error::ReadError;
pub use read::{Naming, read, read_file};
pub use watch::Watch;
