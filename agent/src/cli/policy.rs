//! `ringfence policy check`: parse, lint and compile, without an agent.

use std::path::PathBuf;

use ringfence_documents::Naming;
use ringfence_policy::{
    compile::{CompileError, Context, compile, derive_identities},
    model::{Document, PolicySet},
    parse::{Diagnostic, lint, parse},
};
use ringfence_proto::text::counted;
use serde_json::json;
use time::OffsetDateTime;

use super::{CliError, args::Format, note, output::Output};
use crate::identity::{absent, scripts};

/// Kernel time of the trial compilation: far from 0, so that times in the past can be told.
const BOOT_NOW_NS: u64 = 1 << 60;

/// What was found.
#[derive(Default)]
struct Findings {
    errors: Vec<String>,
    warnings: Vec<String>,
    /// Workloads, policies and rules, if the policy is valid.
    summary: String,
}

/// Checks all documents below `paths` as one policy.
pub(super) fn check(paths: &[PathBuf], output: &mut Output) -> Result<(), CliError> {
    let documents = documents(paths)?;
    let found = find(&documents);
    let valid = found.errors.is_empty();
    if output.format_or(Format::Table) == Format::Json {
        output.json(&json!({
            "valid": valid,
            "errors": found.errors,
            "warnings": found.warnings,
        }))?;
    } else {
        for error in &found.errors {
            note(&format!("error: {error}"));
        }
        for warning in &found.warnings {
            note(&format!("warning: {warning}"));
        }
        if valid {
            output.line(&found.summary)?;
        }
    }
    if valid {
        return Ok(());
    }
    output.flush()?;
    Err(CliError::PolicyInvalid)
}

fn find(documents: &[Document]) -> Findings {
    let set = match parse(documents) {
        Ok(set) => set,
        Err(errors) => {
            return Findings {
                errors: errors.iter().map(Diagnostic::to_string).collect(),
                ..Findings::default()
            };
        }
    };
    let rules: usize = set.policies.iter().map(|policy| policy.rules.len()).sum();
    Findings {
        errors: trial(&set).err().iter().map(ToString::to_string).collect(),
        warnings: lint(&set, OffsetDateTime::now_utc())
            .iter()
            .chain(&scripts(&set))
            .map(Diagnostic::to_string)
            .chain(absent(&set, None))
            .collect(),
        summary: format!(
            "valid: {}, {}, {} in {}",
            counted(set.workloads.len(), "workload", "workloads"),
            counted(set.policies.len(), "policy", "policies"),
            counted(rules, "rule", "rules"),
            counted(documents.len(), "document", "documents")
        ),
    }
}

/// Compiles as an agent would; identities of a deployment with a controller may be others.
fn trial(set: &PolicySet) -> Result<(), CompileError> {
    let identities = derive_identities(set)?;
    let context = Context {
        now: OffsetDateTime::now_utc(),
        boot_now_ns: BOOT_NOW_NS,
        deny_unselected: false,
    };
    compile(set, &identities, &context).map(|_compiled| ())
}

/// The files named, and those in the directories named, in order.
fn documents(paths: &[PathBuf]) -> Result<Vec<Document>, CliError> {
    let mut documents = Vec::new();
    for path in paths {
        if path.is_dir() {
            documents.extend(ringfence_documents::read(path, Naming::Path)?);
        } else {
            documents.push(ringfence_documents::read_file(path)?);
        }
    }
    // One file named twice would be every declaration twice.
    documents.sort();
    documents.dedup();
    Ok(documents)
}
