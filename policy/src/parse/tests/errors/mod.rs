//! Each error with its line, message and remedy.

mod document;
mod policy_and_selector;
mod rule;

use super::parse_one;

/// A valid workload, so that a case has only the error it is about. Five lines.
const WEB: &str = r#"[[workload]]
name = "web"
labels = { app = "web" }
match = { systemd-unit = "web.service" }

"#;
const POLICY: &str = "[[policy]]\nname = \"p\"\napplies-to = { app = \"web\" }\n";

/// The one error of `text`, as it is shown.
fn error(text: &str) -> String {
    let errors = parse_one(text).unwrap_err();
    assert_eq!(errors.len(), 1, "{text}\n{errors:#?}");
    errors[0].to_string()
}

/// The error of a workload with this `match` table; it stands in line 3.
fn error_of_match(selectors: &str) -> String {
    error(&format!(
        "[[workload]]\nname = \"w\"\nmatch = {{ {selectors} }}\n"
    ))
}

/// The error of a policy with these lines; the first stands in line 9.
fn error_of_policy(lines: &str) -> String {
    error(&format!("{WEB}{POLICY}{lines}"))
}

/// The error of an egress rule with this line, which is line 10.
fn error_of_egress(line: &str) -> String {
    error_of_policy(&format!("[[policy.egress]]\n{line}\n"))
}
