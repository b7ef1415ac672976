//! docs/threat-model.md names tests that are there, and every attempt of this program has a row.

use std::{collections::BTreeSet, fs, path::Path};

const PAGE: &str = include_str!("../../../docs/threat-model.md");

/// A test: its file from the top of the tree, and its function.
type Test = (String, String);

/// The tests that the last cell of a row names.
fn tests_of(row: &str) -> impl Iterator<Item = Test> {
    let cell = row.trim_end_matches([' ', '|']).rsplit('|').next();
    let words = cell.unwrap_or_default().split('`').skip(1).step_by(2);
    words.filter_map(|word| {
        let (file, function) = word.split_once("::")?;
        let of_root = ["bypass/", "net/", "faults/"]
            .iter()
            .any(|it| file.starts_with(it));
        let path = if of_root {
            format!("tests/tests/{file}.rs")
        } else {
            file.to_owned()
        };
        Some((path, function.to_owned()))
    })
}

/// The test functions of a source file.
fn functions(path: &Path) -> Vec<String> {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut found = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line == "#[test]" {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ")
            && std::mem::take(&mut is_test)
        {
            found.push(rest.split('(').next().unwrap().to_owned());
        }
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

#[test]
fn every_row_of_the_threat_model_has_its_test() {
    let (_, attempts) = PAGE.split_once("## The attempts").unwrap();
    let (attempts, _) = attempts.split_once("## Out of reach").unwrap();
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| attempt |");
    let rows: Vec<_> = attempts.lines().filter(is_row).collect();
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
        if name == "threat_model.rs" {
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

#[test]
fn a_row_is_read_as_it_is_written() {
    let row = "| to `::1` | `bind` | `net/tcp::one`, `policy/src/a.rs::two` |";
    let expected = [
        ("tests/tests/net/tcp.rs", "one"),
        ("policy/src/a.rs", "two"),
    ];
    let expected = expected.map(|(file, function)| (file.to_owned(), function.to_owned()));
    assert_eq!(tests_of(row).collect::<Vec<_>>(), expected);
}
