//! Policy: from TOML documents to tables that the kernel looks up.
//!
//! The path is one way: document -> raw (serde, private to [`parse`]) -> valid ([`model`]) ->
//! compiled ([`compile`]) -> plan ([`plan`]). Everything here is pure: no files, no clock, no kernel.
//! [`explain`] answers from the compiled tables through the same code that the kernel runs.

pub mod compile;
pub mod explain;
pub mod model;
#[cfg(any(test, feature = "oracle"))]
pub mod oracle;
pub mod parse;
pub mod plan;
