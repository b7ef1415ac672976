//! Keys that nobody knows.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::ConfigError;

const TABLES: [(&str, &[&str]); 3] = [
    ("server", &["listen", "max-agents"]),
    ("tls", &["cert", "key", "client-ca", "verify-host"]),
    ("store", &["policy-dir", "state-dir"]),
];

/// Refuses the first unknown key, naming the one that was probably meant.
pub(super) fn check(path: &Path, text: &str) -> Result<(), ConfigError> {
    let document = DeTable::parse(text).map_err(|error| {
        let byte = error.span().map_or(0, |span| span.start);
        ConfigError::at(path, text, byte, error.message())
    })?;
    for (table, value) in document.get_ref() {
        let at = table.span().start;
        let name = table.get_ref();
        let Some((_, keys)) = TABLES.iter().find(|(known, _)| known == name) else {
            let known = TABLES.map(|(known, _)| known);
            return Err(unknown(path, text, at, "table", name, &known));
        };
        let DeValue::Table(entries) = value.get_ref() else {
            let message = format!("{name} is a table; write [{name}]");
            return Err(ConfigError::at(path, text, at, message));
        };
        for key in entries.keys() {
            if !keys.contains(&key.get_ref().as_ref()) {
                let at = key.span().start;
                return Err(unknown(path, text, at, "key", key.get_ref(), keys));
            }
        }
    }
    Ok(())
}

fn unknown(
    path: &Path,
    text: &str,
    at: usize,
    what: &str,
    name: &str,
    known: &[&str],
) -> ConfigError {
    let nearest = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, name), known))
        .filter(|(distance, known)| *distance <= known.len() / 2)
        .min();
    let advice = match nearest {
        Some((_, known)) => format!("did you mean {known:?}?"),
        None => format!("known are {}", known.join(", ")),
    };
    ConfigError::at(
        path,
        text,
        at,
        format_args!("unknown {what} {name:?}; {advice}"),
    )
}
