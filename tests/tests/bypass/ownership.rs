//! docs/ownership.md names tests that are there with the cases that they play, and every case has a row.

use std::{collections::BTreeSet, fs};

use crate::named::{cases_of, functions, root, rows, tests_of};

const PAGE: &str = include_str!("../../../docs/ownership.md");
/// Files whose tests play lists of cases.
const LISTS: [&str; 4] = [
    "ownership",
    "ownership_kept",
    "ownership_listener",
    "ownership_uring",
];

/// The names of the cases in a source file: what a call of `row` begins with.
fn cases(file: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(file)).unwrap();
    let calls = text.split("row(").skip(1);
    let names = calls.filter_map(|call| call.trim_start().strip_prefix('"')?.split('"').next());
    names.map(str::to_owned).collect()
}

#[test]
fn every_row_about_owners_has_its_test_and_every_case_its_row() {
    let rows = rows(PAGE);
    assert!(rows.len() > 30, "{} rows", rows.len());
    let mut named = BTreeSet::new();
    for row in rows {
        let tests: Vec<_> = tests_of(row).collect();
        assert!(!tests.is_empty(), "a row without a test: {row}");
        let mut played = BTreeSet::new();
        for (file, function) in tests {
            let there = functions(&root().join(&file));
            assert!(there.contains(&function), "{file} has no test {function}");
            for case in cases(&file) {
                let _ = played.insert(case);
            }
            for case in cases_of(row) {
                let _ = named.insert((file.clone(), case.to_owned()));
            }
        }
        for case in cases_of(row) {
            assert!(
                played.contains(case),
                "no test of this row plays {case:?}: {row}"
            );
        }
    }
    for file in LISTS.map(|name| format!("tests/tests/net/{name}.rs")) {
        let there = cases(&file);
        assert!(there.len() >= 4, "{file}: {there:?}");
        for case in there {
            // The plain cases that the others are compared with.
            let is_plain = ["a call", "a listener"].contains(&case.as_str());
            assert!(
                is_plain || named.contains(&(file.clone(), case.clone())),
                "docs/ownership.md has no row for {case:?} of {file}"
            );
        }
    }
}
