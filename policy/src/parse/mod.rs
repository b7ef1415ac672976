//! From TOML documents to a valid [`PolicySet`], or to every error in them.
//!
//! Owns the language of policy documents (docs/policy-language.md). Walks the TOML tree itself, not
//! through `serde`, which stops at the first error. A set with any error is refused whole.

mod blocks;
mod check;
mod cidr;
mod diagnostic;
mod lint;
mod policy;
mod ports;
mod report;
mod rule;
mod selector;
mod suggest;
mod table;
#[cfg(test)]
mod tests;
mod workload;

pub use blocks::Parsed;
pub use diagnostic::Diagnostic;
pub use lint::{Lint, lint};

use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use self::{report::Report, table::Table};
use crate::model::{Document, Policy, PolicySet, Workload};

/// A rule's mention of a workload by name.
struct Reference {
    workload: String,
    file: String,
    line: usize,
}

/// What was read, valid or not.
#[derive(Default)]
struct Contents {
    workloads: Vec<Arc<Workload>>,
    policies: Vec<Arc<Policy>>,
    references: Vec<Reference>,
    /// Some document is not TOML, so that declarations may be missing.
    incomplete: bool,
}

/// Parses and validates documents together; their order does not matter.
///
/// # Errors
/// Every error found, ordered by document and line.
pub fn parse(documents: &[Document]) -> Result<PolicySet, Vec<Diagnostic>> {
    Parsed::default().next(documents).map(|parsed| parsed.set)
}

/// The same with all documents whole: what finds every error.
pub(crate) fn parse_whole(documents: &[Document]) -> Result<PolicySet, Vec<Diagnostic>> {
    let mut contents = Contents::default();
    let mut errors = Vec::new();
    for Document { name, text } in documents {
        let mut report = Report::new(name, 0, text);
        read(&mut report, text, &mut contents);
        errors.append(&mut report.found);
    }
    let Contents {
        mut workloads,
        mut policies,
        references,
        incomplete,
    } = contents;
    errors.extend(check::duplicates(&workloads));
    errors.extend(check::duplicates(&policies));
    if !incomplete {
        errors.extend(check::unknown_workloads(&references, &workloads));
    }
    if errors.is_empty() {
        errors.extend(check::ties(&workloads));
    }
    if !errors.is_empty() {
        errors.sort();
        return Err(errors);
    }
    workloads.sort_by(|a, b| a.name.cmp(&b.name));
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(PolicySet {
        workloads: workloads.into(),
        policies,
    })
}

fn read(report: &mut Report<'_>, text: &str, contents: &mut Contents) {
    let root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(error) => {
            contents.incomplete = true;
            let message = format!("not valid TOML: {}", error.message().replace('\n', ", "));
            let span = error.span().unwrap_or_default();
            report.error(&span, message, "correct the syntax (https://toml.io)");
            return;
        }
    };
    let table = Table::root(root.get_ref(), "a policy document", root.span());
    table.allow(report, &["workload", "policy"], &[]);
    for value in declarations(report, &table, "workload") {
        let workload = workload::read(report, value);
        contents.workloads.extend(workload.map(Arc::new));
    }
    for value in declarations(report, &table, "policy") {
        let policy = policy::read(report, value, &mut contents.references);
        contents.policies.extend(policy.map(Arc::new));
    }
}

fn declarations<'t, 'i>(
    report: &mut Report<'_>,
    table: &Table<'t, 'i>,
    key: &str,
) -> &'t [table::Value<'i>] {
    match table.get(key).map(|value| (value, value.get_ref())) {
        None => &[],
        Some((_, DeValue::Array(list))) => list,
        Some((value, _)) => {
            report.error(
                &value.span(),
                format!("`{key}` must be a list of tables"),
                format!("write `[[{key}]]` with two brackets"),
            );
            &[]
        }
    }
}
