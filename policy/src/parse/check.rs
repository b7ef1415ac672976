//! Checks across documents.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{Diagnostic, Reference, suggest};
use crate::model::{Policy, Selector, Workload};

/// Something that has a unique name.
pub(super) trait Named {
    const WHAT: &'static str;
    fn name(&self) -> &str;
    fn place(&self) -> (&str, usize);
}

impl Named for Workload {
    const WHAT: &'static str = "workload";
    fn name(&self) -> &str {
        &self.name
    }
    fn place(&self) -> (&str, usize) {
        (&self.file, self.line)
    }
}

impl Named for Policy {
    const WHAT: &'static str = "policy";
    fn name(&self) -> &str {
        &self.name
    }
    fn place(&self) -> (&str, usize) {
        (&self.file, self.line)
    }
}

/// Every name that is taken twice; the later declaration is the error.
pub(super) fn duplicates<T: Named>(items: &[Arc<T>]) -> Vec<Diagnostic> {
    let mut first = HashMap::<&str, (&str, usize)>::new();
    let mut found = Vec::new();
    for item in items.iter().filter(|item| !item.name().is_empty()) {
        let (file, line) = item.place();
        let Some((first_file, first_line)) = first.get(item.name()) else {
            let _ = first.insert(item.name(), (file, line));
            continue;
        };
        found.push(Diagnostic {
            file: file.to_owned(),
            line,
            message: format!(
                "{} {:?} is already declared at {first_file}:{first_line}",
                T::WHAT,
                item.name()
            ),
            remedy: "rename or remove one of them".to_owned(),
        });
    }
    found
}

/// References to workloads that no document declares.
pub(super) fn unknown_workloads(
    references: &[Reference],
    workloads: &[Arc<Workload>],
) -> Vec<Diagnostic> {
    let known: BTreeSet<&str> = workloads.iter().map(|w| w.name.as_str()).collect();
    let missing = |reference: &&Reference| !known.contains(reference.workload.as_str());
    let report = |reference: &Reference| {
        let near = suggest::nearest(&reference.workload, known.iter().copied());
        Diagnostic {
            file: reference.file.clone(),
            line: reference.line,
            message: format!("unknown workload {:?}", reference.workload),
            remedy: near.map_or_else(
                || "declare it with `[[workload]]` in one of the documents".to_owned(),
                |near| format!("did you mean {near:?}?"),
            ),
        }
    };
    references.iter().filter(missing).map(report).collect()
}

/// Workloads with the same selectors: no process could ever tell them apart.
pub(super) fn ties(workloads: &[Arc<Workload>]) -> Vec<Diagnostic> {
    let mut first = HashMap::<Vec<String>, &Arc<Workload>>::new();
    let mut found = Vec::new();
    for workload in workloads {
        let mut key: Vec<String> = workload.selectors.iter().map(Selector::to_string).collect();
        key.sort_unstable();
        let Some(other) = first.get(&key) else {
            let _ = first.insert(key, workload);
            continue;
        };
        found.push(Diagnostic {
            file: workload.file.clone(),
            line: workload.line,
            message: format!(
                "workloads {:?} ({}:{}) and {:?} match the same processes",
                other.name, other.file, other.line, workload.name
            ),
            remedy: "add a selector to one of them, or make them one workload".to_owned(),
        });
    }
    found
}
