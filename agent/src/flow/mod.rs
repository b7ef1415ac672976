//! Flow records: from the kernel's events to whoever asks what happened.
//!
//! Owns the log of the last records, the table of live flows and the names that make numbers readable.
//! Path: event -> [`record()`] (in the reader of the ring buffer) -> bounded queue -> [`Store`] (one task) ->
//! [`Handle::read`]. The reader never waits: what does not fit the queue is counted and leaves a gap in
//! the sequence. A slow reader of records loses some and is told how many; it never slows anybody.

mod counters;
mod filter;
mod live;
mod names;
mod process;
mod record;
mod render;
mod store;
#[cfg(test)]
mod tests;

pub use counters::{Counters, Event};
pub use filter::{Filter, FilterError};
pub use live::{Listing, Live};
pub use names::{Names, Party};
pub use process::ProcessBook;
pub use record::{Record, record};
pub use render::address;
pub use store::{CatchUp, Handle, Numbered, Reading, Store, StoreGone, open};
