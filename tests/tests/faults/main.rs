//! What may go wrong goes wrong: kills, stops and errors at every step, full maps, meddling, lack of room.
//!
//! In all of it: what the old and the new policy both deny never passes, what both allow always does, and
//! rules that change together are never seen mixed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

mod confirmed;
mod crowded;
mod disk;
mod errors;
mod idle;
mod kill;
mod limits;
mod meddling;
mod ring;
mod room;
mod settings;
mod soak;
mod stop;
