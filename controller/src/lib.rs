//! The policy server of Ringfence: a directory of policy documents in, one stream per agent out.
//!
//! [`store`] reads and judges the directory, numbers what it accepts and publishes it; [`sync`] brings it
//! to the agents and remembers what they answered; [`api`] tells the operator. [`serve`] wires the tasks.

pub mod api;
pub mod cli;
pub mod config;
pub mod listen;
pub mod serve;
pub mod store;
pub mod sync;
