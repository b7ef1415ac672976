//! Every error of the language, and documents that are valid.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod errors;
mod fuzz;
mod lint;
mod valid;

use super::{Diagnostic, parse};
use crate::model::{Document, PolicySet};

pub(super) fn document(name: &str, text: &str) -> Document {
    Document {
        name: name.to_owned(),
        text: text.into(),
    }
}

pub(super) fn parse_one(text: &str) -> Result<PolicySet, Vec<Diagnostic>> {
    parse(&[document("a.toml", text)])
}
