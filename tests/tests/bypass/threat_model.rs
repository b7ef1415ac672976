//! docs/threat-model.md names tests that are there, and every attempt of this program has a row.

use std::{collections::BTreeSet, fs};

use crate::named::{functions, root, rows, tests_of};

/// Files of this program without attempts.
const PAGES: [&str; 3] = ["threat_model.rs", "ownership.rs", "named.rs"];
const PAGE: &str = include_str!("../../../docs/threat-model.md");

#[test]
fn every_row_of_the_threat_model_has_its_test() {
    let (_, attempts) = PAGE.split_once("## The attempts").unwrap();
    let (attempts, _) = attempts.split_once("## Out of reach").unwrap();
    let rows = rows(attempts);
    assert!(rows.len() > 40, "{} rows", rows.len());
    let mut named = BTreeSet::new();
    for row in rows {
        let tests: Vec<_> = tests_of(row).collect();
        assert!(!tests.is_empty(), "a row without a test: {row}");
        for (file, function) in tests {
            let there = functions(&root().join(&file));
            assert!(there.contains(&function), "{file} has no test {function}");
            let _ = named.insert((file, function));
        }
    }
    for entry in fs::read_dir(root().join("tests/tests/bypass")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if PAGES.contains(&name.as_str()) {
            continue;
        }
        for function in functions(&path) {
            let test = (format!("tests/tests/bypass/{name}"), function);
            assert!(
                named.contains(&test),
                "docs/threat-model.md has no row for {test:?}"
            );
        }
    }
}
