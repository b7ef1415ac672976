//! Values of the kinds that several sections hold.

use std::path::{Path, PathBuf};

use super::read::Section;

/// One of a few words.
pub(super) fn choice<T: Copy>(
    section: &mut Section<'_, '_>,
    key: &'static str,
    words: &[(&str, T)],
    default: T,
) -> T {
    let Some(value) = section.take::<String>(key) else {
        return default;
    };
    if let Some((_, choice)) = words.iter().find(|(word, _)| word == value.get_ref()) {
        return *choice;
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    section.problem(
        &value.span(),
        format!("`{key}` can't be `{}`", value.get_ref()),
        &format!("write one of: {}", known.join(", ")),
    );
    default
}

/// A number from 1 to `max`.
pub(super) fn number(
    section: &mut Section<'_, '_>,
    key: &'static str,
    default: u64,
    max: u64,
) -> u64 {
    match section.take::<u64>(key) {
        None => default,
        Some(value) if (1..=max).contains(value.get_ref()) => value.into_inner(),
        Some(value) => {
            section.problem(
                &value.span(),
                format!("`{key}` can't be {}", value.get_ref()),
                &format!("write a number from 1 to {max}"),
            );
            default
        }
    }
}

/// A path; a relative one counts from `base`.
pub(super) fn path(
    section: &mut Section<'_, '_>,
    key: &'static str,
    base: &Path,
) -> Option<PathBuf> {
    text(section, key).map(|text| base.join(text))
}

/// A text that is not empty.
pub(super) fn text(section: &mut Section<'_, '_>, key: &'static str) -> Option<String> {
    let value = section.take::<String>(key)?;
    if value.get_ref().is_empty() {
        section.problem(
            &value.span(),
            format!("`{key}` is empty"),
            "write a value, or remove the key",
        );
        return None;
    }
    Some(value.into_inner())
}
