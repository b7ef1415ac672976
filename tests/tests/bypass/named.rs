//! The tests that tables of the documentation name.

use std::{fs, path::Path};

/// A test: its file from the top of the tree, and its function.
pub type Test = (String, String);

/// The tests that the last cell of a row names.
pub fn tests_of(row: &str) -> impl Iterator<Item = Test> {
    let words = last_cell(row).split('`').skip(1).step_by(2);
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

/// What the last cell of a row puts in quotes: cases of a test that plays a list of them.
pub fn cases_of(row: &str) -> impl Iterator<Item = &str> {
    last_cell(row).split('"').skip(1).step_by(2)
}

/// The rows of the tables in a text, without the lines above them.
pub fn rows(text: &str) -> Vec<&str> {
    let lines: Vec<_> = text.lines().collect();
    let is_head = |at: usize| {
        let rule = lines.get(at + 1);
        rule.is_some_and(|line| line.starts_with("|---"))
    };
    let row = |(at, line): (usize, &&'_ str)| line.starts_with("| ") && !is_head(at);
    let numbers = lines.iter().enumerate().filter(|it| row(*it));
    numbers.map(|(_, line)| *line).collect()
}

fn last_cell(row: &str) -> &str {
    let cell = row.trim_end_matches([' ', '|']).rsplit('|').next();
    cell.unwrap_or_default()
}

/// The test functions of a source file.
pub fn functions(path: &Path) -> Vec<String> {
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

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
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
    let row = "| `dup` | who | `net/tcp::one` (\"a\", \"b, c\"), `net/udp::two` |";
    assert_eq!(cases_of(row).collect::<Vec<_>>(), ["a", "b, c"]);
    assert_eq!(rows("| x |\n|---|\n| `y` |\ntext"), ["| `y` |"]);
}
