//! Typed access to the keys of a TOML table. Every mismatch is reported; the caller goes on with
//! what there is, because a document with an error is refused whole at the end.

use std::collections::BTreeMap;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    report::{Report, Span},
    suggest,
};

/// A value with its place.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// A table and what it stands for in messages ("a workload", "an egress rule").
pub(super) struct Table<'t, 'i> {
    entries: &'t DeTable<'i>,
    what: String,
    pub(super) span: Span,
}

impl<'t, 'i> Table<'t, 'i> {
    pub(super) fn open(report: &mut Report<'_>, value: &'t Value<'i>, what: &str) -> Option<Self> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            let message = format!("{what} must be a table, not {}", kind(value));
            report.error(&value.span(), message, "write it as `{ key = value }`");
        }
        Some(Self::root(table?, what, value.span()))
    }

    pub(super) fn root(table: &'t DeTable<'i>, what: &str, span: Span) -> Self {
        Self {
            entries: table,
            what: what.to_owned(),
            span,
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = (&'t str, Span, &'t Value<'i>)> {
        let place = |(key, value): (&'t Spanned<_>, _)| {
            let name: &std::borrow::Cow<'i, str> = key.get_ref();
            (&**name, key.span(), value)
        };
        self.entries.iter().map(place)
    }

    /// Reports every key that is not among `known`, but for those that the caller reports itself.
    pub(super) fn allow(&self, report: &mut Report<'_>, known: &[&str], reported: &[&str]) {
        for (key, span, _) in self.keys() {
            if !known.contains(&key) && !reported.contains(&key) {
                let message = format!("unknown key `{key}` in {}", self.what);
                report.error(&span, message, suggest::remedy(key, known));
            }
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'t Value<'i>> {
        self.entries.get(key)
    }

    /// Place of a key, or of the table when it has none.
    pub(super) fn place(&self, key: &str) -> Span {
        self.get(key)
            .map_or_else(|| self.span.clone(), Spanned::span)
    }

    pub(super) fn require(&self, report: &mut Report<'_>, key: &str, remedy: &str) {
        if self.get(key).is_none() {
            report.error(&self.span, format!("{} has no `{key}`", self.what), remedy);
        }
    }

    pub(super) fn string(&self, report: &mut Report<'_>, key: &str) -> Option<&'t str> {
        string(report, self.get(key)?, key)
    }

    pub(super) fn boolean(&self, report: &mut Report<'_>, key: &str) -> Option<bool> {
        let value = self.get(key)?;
        let boolean = value.get_ref().as_bool();
        if boolean.is_none() {
            mismatch(report, value, key, "true or false");
        }
        boolean
    }

    pub(super) fn list(&self, report: &mut Report<'_>, key: &str) -> Option<&'t [Value<'i>]> {
        let value = self.get(key)?;
        let list = value.get_ref().as_array();
        if list.is_none() {
            mismatch(report, value, key, "a list in square brackets");
        }
        list.map(|list| &**list)
    }

    /// Labels; an empty table is an error, because it would select everything.
    pub(super) fn labels(&self, report: &mut Report<'_>, key: &str) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let Some(value) = self.get(key) else {
            return labels;
        };
        let Some(table) = Self::open(report, value, &format!("`{key}`")) else {
            return labels;
        };
        if table.entries.is_empty() {
            report.error(
                &value.span(),
                format!("`{key}` of {} is empty", self.what),
                "name at least one label, such as `{ app = \"web\" }`",
            );
        }
        for (label, span, value) in table.keys() {
            if label.is_empty() {
                report.error(&span, "a label has an empty name", "name it");
            }
            if let Some(text) = string(report, value, label) {
                let _ = labels.insert(label.to_owned(), text.to_owned());
            }
        }
        labels
    }

    /// The unique name of a workload or policy; empty when it has no valid one.
    pub(super) fn name(&self, report: &mut Report<'_>) -> String {
        self.require(report, "name", "add `name = \"...\"`");
        let Some(name) = self.string(report, "name") else {
            return String::new();
        };
        let span = self.place("name");
        if name.is_empty() {
            report.error(
                &span,
                format!("the name of {} is empty", self.what),
                "name it",
            );
        } else if name.len() > 253 || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            report.error(
                &span,
                format!("{name:?} can't be a name"),
                "use at most 253 bytes without spaces and control characters",
            );
        }
        name.to_owned()
    }
}

pub(super) fn string<'t>(
    report: &mut Report<'_>,
    value: &'t Value<'_>,
    key: &str,
) -> Option<&'t str> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        mismatch(report, value, key, "a string");
    }
    text
}

fn mismatch(report: &mut Report<'_>, value: &Value<'_>, key: &str, wanted: &str) {
    let message = format!("`{key}` must be {wanted}, not {}", kind(value));
    report.error(&value.span(), message, format!("write {wanted}"));
}

fn kind(value: &Value<'_>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
