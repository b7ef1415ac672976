//! Reads keys out of a TOML document one by one and collects every problem on the way.
//!
//! The keys that are asked for are the keys that exist: what is left in a section at its end is an
//! unknown key. So the list of keys stands in one place, where they are used.

use std::{collections::BTreeMap, ops::Range};

use serde::{Deserialize, de::IntoDeserializer as _};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Problem;

/// Similarity above which an unknown key is taken for a misspelt one (Jaro-Winkler, 0 to 1).
const CLOSE: f64 = 0.8;

type Entries<'t> = BTreeMap<String, (Range<usize>, Spanned<DeValue<'t>>)>;

/// A document and what was found wrong with it so far.
pub(super) struct Document<'t> {
    text: &'t str,
    sections: Entries<'t>,
    known: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl<'t> Document<'t> {
    /// Syntax errors become problems; what can be read in spite of them is read.
    pub(super) fn parse(text: &'t str) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut document = Self {
            text,
            sections: entries(table.into_inner()),
            known: Vec::new(),
            problems: Vec::new(),
        };
        for error in errors {
            let at = error.span().unwrap_or(0..0);
            document.problem(&at, error.message().to_owned(), "correct the TOML syntax");
        }
        document
    }

    /// The section `[name]`; an empty one if the document has none.
    pub(super) fn section(&mut self, name: &'static str) -> Section<'_, 't> {
        self.known.push(name);
        let found = self.sections.remove(name);
        let present = found.is_some();
        let (span, entries) = match found {
            None => (0..0, Entries::new()),
            Some((span, value)) => {
                let kind = value.get_ref().type_str();
                if let DeValue::Table(table) = value.into_inner() {
                    (span, entries(table))
                } else {
                    let message = format!("`{name}` is a {kind}, not a section");
                    self.problem(
                        &span,
                        message,
                        &format!("write `[{name}]` on a line of its own"),
                    );
                    (span, Entries::new())
                }
            }
        };
        Section {
            name,
            present,
            span,
            entries,
            known: Vec::new(),
            document: self,
        }
    }

    /// Records a problem.
    pub(super) fn problem(&mut self, at: &Range<usize>, message: String, remedy: &str) {
        let before = self.text.get(..at.start).unwrap_or(self.text);
        self.problems.push(Problem {
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            message,
            remedy: remedy.to_owned(),
        });
    }

    /// Every problem, in the order of lines; sections that nobody asked for are among them.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        for (name, (span, _)) in std::mem::take(&mut self.sections) {
            let remedy = suggestion(&name, &self.known);
            self.problem(&span, format!("unknown section `{name}`"), &remedy);
        }
        self.problems.sort();
        self.problems.dedup();
        self.problems
    }
}

/// One section that is being read.
pub(super) struct Section<'d, 't> {
    name: &'static str,
    present: bool,
    span: Range<usize>,
    entries: Entries<'t>,
    known: Vec<&'static str>,
    document: &'d mut Document<'t>,
}

impl Section<'_, '_> {
    /// Whether the document has this section.
    pub(super) const fn is_present(&self) -> bool {
        self.present
    }

    /// Where the section begins.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The value of `key`; `None` if it is absent or of another type (which is a problem).
    pub(super) fn take<T>(&mut self, key: &'static str) -> Option<Spanned<T>>
    where
        T: for<'de> Deserialize<'de>,
    {
        self.known.push(key);
        let (_, value) = self.entries.remove(key)?;
        let span = value.span();
        match T::deserialize(value.into_deserializer()) {
            Ok(value) => Some(Spanned::new(span, value)),
            Err(error) => {
                let at = error.span().unwrap_or(span);
                let message = format!("`{}.{key}`: {}", self.name, error.message());
                self.problem(
                    &at,
                    message,
                    "see the commented agent.toml for the form of each key",
                );
                None
            }
        }
    }

    /// Records a problem.
    pub(super) fn problem(&mut self, at: &Range<usize>, message: String, remedy: &str) {
        self.document.problem(at, message, remedy);
    }

    /// Ends the section: keys that nobody asked for are problems.
    pub(super) fn finish(self) {
        for (key, (span, _)) in self.entries {
            let remedy = suggestion(&key, &self.known);
            let message = format!("unknown key `{key}` in section `[{}]`", self.name);
            self.document.problem(&span, message, &remedy);
        }
    }
}

fn entries(table: DeTable<'_>) -> Entries<'_> {
    table
        .into_iter()
        .map(|(key, value)| (key.get_ref().to_string(), (key.span(), value)))
        .collect()
}

/// What to do about an unknown name where `known` ones exist.
fn suggestion(name: &str, known: &[&'static str]) -> String {
    let close = known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= CLOSE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match close {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}
