//! Pieces of policy text.

use std::fmt::Write as _;

/// Workloads chosen by the cgroup of their name, with the label `app = NAME`.
#[must_use]
pub fn workloads(names: &[&str]) -> String {
    let mut text = String::new();
    for name in names {
        text += &workload(name, &format!("cgroup = \"/{name}\""));
    }
    text
}

/// A workload with the selectors `selectors` and the label `app = NAME`.
#[must_use]
pub fn workload(name: &str, selectors: &str) -> String {
    format!(
        "[[workload]]\nname = \"{name}\"\nlabels = {{ app = \"{name}\" }}\nmatch = {{ {selectors} }}\n\n"
    )
}

/// A policy for the workload `name`, called like it. `keys` are more keys of the policy, a line each.
#[must_use]
pub fn policy(name: &str, keys: &str, rules: &[Rule<'_>]) -> String {
    let mut text =
        format!("[[policy]]\nname = \"{name}\"\napplies-to = {{ app = \"{name}\" }}\n{keys}\n\n");
    for rule in rules {
        let _ = writeln!(text, "[[policy.{}]]\n{}\n", rule.0, rule.1);
    }
    text
}

/// List of a rule (`egress`, `deny-ingress`, …), and its keys.
pub type Rule<'a> = (&'a str, &'a str);

/// RFC 3339 time of now plus some seconds.
#[must_use]
pub fn in_seconds(seconds: i64) -> String {
    let time = time::OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
    time.format(&time::format_description::well_known::Rfc3339)
        .unwrap()
}
