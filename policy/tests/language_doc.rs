//! docs/policy-language.md says what the code does.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;

use ringfence_common::abi::Reason;
use ringfence_policy::{
    compile::{Context, compile, derive_identities},
    model::Document,
    parse::{lint, parse},
};
use time::OffsetDateTime;

const PAGE: &str = include_str!("../../docs/policy-language.md");
const README: &str = include_str!("../../README.md");

/// Texts of the fenced blocks of a page with this information string.
fn blocks(page: &str, kind: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside: Option<(bool, String)> = None;
    for line in page.lines() {
        match (&mut inside, line.strip_prefix("```")) {
            (None, Some(info)) => inside = Some((info == kind, String::new())),
            (None, None) => {}
            (Some(_), Some(_)) => found.extend(inside.take().filter(|(sought, _)| *sought)),
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    found.into_iter().map(|(_, text)| text).collect()
}

#[test]
fn examples_are_valid_together_and_without_warnings() {
    let examples = blocks(PAGE, "toml");
    assert_eq!(examples.len(), 4);
    let document = |(number, text): (usize, String)| Document {
        name: format!("example-{number}.toml"),
        text: text.into(),
    };
    let documents: Vec<Document> = examples.into_iter().enumerate().map(document).collect();
    let set = parse(&documents).unwrap();
    assert_eq!(lint(&set, OffsetDateTime::UNIX_EPOCH), []);
    let context = Context {
        now: OffsetDateTime::UNIX_EPOCH,
        boot_now_ns: 0,
        deny_unselected: false,
    };
    let compiled = compile(&set, &derive_identities(&set).unwrap(), &context).unwrap();
    assert_eq!(compiled.tables.len(), set.workloads.len());
}

#[test]
fn every_example_is_a_valid_document_of_its_own() {
    for (page, number) in [(README, 1), (PAGE, 4)] {
        let examples = blocks(page, "toml");
        assert_eq!(examples.len(), number);
        for text in examples {
            let name = "example.toml".to_owned();
            let parsed = parse(&[Document {
                name,
                text: text.as_str().into(),
            }]);
            assert!(parsed.is_ok(), "{parsed:?}\n{text}");
        }
    }
}

#[test]
fn the_errors_shown_are_those_of_the_document_shown() {
    let text = blocks(PAGE, "toml error").concat();
    let name = "web.toml".to_owned();
    let errors = parse(&[Document {
        name,
        text: text.into(),
    }])
    .unwrap_err();
    let mut shown = String::new();
    for error in errors {
        writeln!(shown, "{error}").unwrap();
    }
    assert_eq!(
        blocks(PAGE, "text"),
        [shown.as_str()],
        "write this:\n{shown}"
    );
}

#[test]
fn the_table_of_reasons_is_that_of_the_code() {
    let mut table = String::from("| number | reason | meaning |\n|---|---|---|\n");
    for reason in Reason::ALL {
        let (number, name, text) = (*reason as u8, reason.name(), reason.text());
        writeln!(table, "| {number} | `{name}` | {text} |").unwrap();
    }
    let (_, generated) = PAGE.split_once("<!-- generated: reasons -->\n").unwrap();
    assert_eq!(generated.trim(), table.trim(), "write this:\n{table}");
}
