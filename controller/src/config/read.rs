//! Reads keys out of a TOML document one by one and collects every problem on the way.

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

use serde::{Deserialize, de::IntoDeserializer as _};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Problem;

const TABLES: [(&str, &[&str]); 3] = [
    ("server", &["listen", "max-agents"]),
    ("tls", &["cert", "key", "client-ca", "verify-host"]),
    ("store", &["policy-dir", "state-dir"]),
];

/// A document and what was found wrong with it so far.
pub(super) struct Reader<'t> {
    text: &'t str,
    values: BTreeMap<(String, String), Spanned<DeValue<'t>>>,
    tables: BTreeMap<String, Range<usize>>,
    problems: Vec<Problem>,
}

impl<'t> Reader<'t> {
    /// Tables and keys that nobody knows, and wrong syntax, become problems.
    pub(super) fn new(text: &'t str) -> Self {
        let (document, errors) = DeTable::parse_recoverable(text);
        let mut reader = Self {
            text,
            values: BTreeMap::new(),
            tables: BTreeMap::new(),
            problems: Vec::new(),
        };
        for error in errors {
            let at = error.span().unwrap_or(0..0);
            reader.problem(&at, error.message().replace('\n', ", "));
        }
        for (name, value) in document.into_inner() {
            reader.table(&name, value);
        }
        reader
    }

    fn table(&mut self, name: &Spanned<Cow<'t, str>>, value: Spanned<DeValue<'t>>) {
        let at = name.span();
        let name = name.get_ref().as_ref();
        let Some((_, keys)) = TABLES.iter().find(|(known, _)| *known == name) else {
            let known = TABLES.map(|(known, _)| known);
            return self.problem(&at, unknown("table", name, &known));
        };
        let DeValue::Table(entries) = value.into_inner() else {
            return self.problem(&at, format!("{name} is a table; write [{name}]"));
        };
        let _before = self.tables.insert(name.to_owned(), at);
        for (key, value) in entries {
            if keys.contains(&key.get_ref().as_ref()) {
                let place = (name.to_owned(), key.get_ref().to_string());
                let _before = self.values.insert(place, value);
            } else {
                self.problem(&key.span(), unknown("key", key.get_ref(), keys));
            }
        }
    }

    /// Where the table begins, if the document has it.
    pub(super) fn place(&self, table: &str) -> Option<Range<usize>> {
        self.tables.get(table).cloned()
    }

    /// Whether the key is written and was not taken yet.
    pub(super) fn has(&self, table: &str, key: &str) -> bool {
        self.values
            .contains_key(&(table.to_owned(), key.to_owned()))
    }

    /// The value of a key; `None` if it is absent, or of another type, which is a problem.
    pub(super) fn take<T>(&mut self, table: &str, key: &str) -> Option<Spanned<T>>
    where
        T: for<'de> Deserialize<'de>,
    {
        let value = self.values.remove(&(table.to_owned(), key.to_owned()))?;
        let span = value.span();
        match T::deserialize(value.into_deserializer()) {
            Ok(value) => Some(Spanned::new(span, value)),
            Err(error) => {
                let message = format!("[{table}] {key}: {}", error.message());
                self.problem(&span, message);
                None
            }
        }
    }

    /// Records a problem.
    pub(super) fn problem(&mut self, at: &Range<usize>, message: String) {
        let before = self.text.bytes().take(at.start);
        self.problems.push(Problem {
            line: 1 + before.filter(|byte| *byte == b'\n').count(),
            message,
        });
    }

    /// Every problem, in the order of lines.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        self.problems.sort();
        self.problems
    }
}

fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, name), known))
        .filter(|(distance, known)| *distance <= known.len() / 2)
        .min();
    match nearest {
        Some((_, known)) => format!("unknown {what} {name:?}; did you mean {known:?}?"),
        None => format!("unknown {what} {name:?}; known are {}", known.join(", ")),
    }
}
