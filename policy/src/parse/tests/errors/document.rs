//! Documents, keys, types and names.

use super::{POLICY, WEB, error, error_of_egress, error_of_policy};
use crate::{
    model::RESERVED,
    parse::tests::{document, parse, parse_one},
};

#[test]
fn broken_toml_names_the_line() {
    let shown = error("[[workload]]\nname = \"web\nmatch = 1\n");
    assert!(shown.starts_with("a.toml:2: not valid TOML: "), "{shown}");
    assert!(
        shown.ends_with("; correct the syntax (https://toml.io)"),
        "{shown}"
    );
}

#[test]
fn broken_document_hides_no_error_of_another_and_invents_none() {
    let user =
        format!("{POLICY}mod = 1\n[[policy.egress]]\nto = [{{ workload = \"elsewhere\" }}]\n");
    let errors = parse(&[document("a.toml", "x = "), document("b.toml", &user)]).unwrap_err();
    assert_eq!(errors.len(), 2, "{errors:#?}");
    assert_eq!(
        errors[1].to_string(),
        "b.toml:4: unknown key `mod` in a policy; did you mean `mode`?"
    );
}

#[test]
fn unknown_keys_get_a_suggestion() {
    assert_eq!(
        error("[[workloads]]\nname = \"x\"\n"),
        "a.toml:1: unknown key `workloads` in a policy document; did you mean `workload`?"
    );
    assert_eq!(
        error(&WEB.replace("labels", "lables")),
        "a.toml:3: unknown key `lables` in a workload; did you mean `labels`?"
    );
    assert_eq!(
        error_of_policy("aplies_to = {}"),
        "a.toml:9: unknown key `aplies_to` in a policy; did you mean `applies-to`?"
    );
    assert_eq!(
        error_of_policy("[[policy.deny_egress]]"),
        "a.toml:9: unknown key `deny_egress` in a policy; did you mean `deny-egress`?"
    );
    assert_eq!(
        error_of_egress("port = [\"443/tcp\"]"),
        "a.toml:10: unknown key `port` in a rule of `egress`; did you mean `ports`?"
    );
    assert_eq!(
        error_of_egress("to = [{ cidr = \"10.0.0.0/8\", excep = [] }]"),
        "a.toml:10: unknown key `excep` in a peer; did you mean `except`?"
    );
    assert_eq!(
        error_of_egress("colour = 1"),
        "a.toml:10: unknown key `colour` in a rule of `egress`; use one of: to, ports"
    );
}

#[test]
fn single_brackets_are_pointed_out() {
    assert_eq!(
        error("[workload]\nname = \"x\"\n"),
        "a.toml:1: `workload` must be a list of tables; write `[[workload]]` with two brackets"
    );
    assert_eq!(
        error_of_policy("[policy.egress]"),
        "a.toml:9: `egress` must be a list of rules; write `[[policy.egress]]` with two brackets"
    );
}

#[test]
fn wrong_types_say_what_is_wanted() {
    assert_eq!(
        error_of_egress("ports = \"443/tcp\""),
        "a.toml:10: `ports` must be a list in square brackets, not a string; write a list in square brackets"
    );
    assert_eq!(
        error_of_egress("to = [\"web\"]"),
        "a.toml:10: a peer must be a table, not a string; write it as `{ key = value }`"
    );
    assert_eq!(
        error_of_egress("to = [{ workload = \"web\", verified = 1 }]"),
        "a.toml:10: `verified` must be true or false, not an integer; write true or false"
    );
}

#[test]
fn names_are_unique_over_all_documents() {
    let again = WEB.replace("web.service", "other.service");
    let errors = parse(&[
        document("a.toml", &format!("{WEB}{POLICY}")),
        document("b.toml", &format!("\n{again}{POLICY}")),
    ])
    .unwrap_err();
    let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "b.toml:2: workload \"web\" is already declared at a.toml:1; rename or remove one of them",
            "b.toml:7: policy \"p\" is already declared at a.toml:6; rename or remove one of them",
        ]
    );
}

#[test]
fn names_are_words() {
    assert_eq!(
        error("[[workload]]\nmatch = { uid = 1 }\n"),
        "a.toml:1: a workload has no `name`; add `name = \"...\"`"
    );
    assert_eq!(
        error(&WEB.replace("\"web\"\nl", "\"\"\nl")),
        "a.toml:2: the name of a workload is empty; name it"
    );
    assert_eq!(
        error(&WEB.replace("\"web\"\nl", "\"we b\"\nl")),
        "a.toml:2: \"we b\" can't be a name; use at most 253 bytes without spaces and control characters"
    );
}

#[test]
fn empty_label_sets_select_nothing_by_mistake() {
    assert_eq!(
        error(&WEB.replace("{ app = \"web\" }", "{}")),
        "a.toml:3: `labels` of a workload is empty; name at least one label, such as `{ app = \"web\" }`"
    );
    assert_eq!(
        error(&format!(
            "{WEB}{}",
            POLICY.replace("{ app = \"web\" }", "{}")
        )),
        "a.toml:8: `applies-to` of a policy is empty; name at least one label, such as `{ app = \"web\" }`"
    );
    assert_eq!(
        error_of_egress("to = [{ labels = {} }]"),
        "a.toml:10: `labels` of a peer is empty; name at least one label, such as `{ app = \"web\" }`"
    );
    assert_eq!(
        error(&format!("{WEB}[[policy]]\nname = \"p\"\n")),
        "a.toml:6: a policy has no `applies-to`; say which workloads it is for, such as `applies-to = { app = \"web\" }`"
    );
    assert_eq!(
        error("[[workload]]\nname = \"w\"\nmatch = {}\n"),
        "a.toml:3: `match` is empty; add at least one selector: cgroup, systemd-unit, systemd-slice, systemd-user-unit, systemd-user-slice, exe, sha256, user, uid, group, gid, container, k8s"
    );
    assert_eq!(
        error("[[workload]]\nname = \"w\"\n"),
        "a.toml:1: a workload has no `match`; say which processes it has, such as `match = { systemd-unit = \"web.service\" }`"
    );
}

#[test]
fn all_errors_are_collected_in_order() {
    let text = format!(
        "{WEB}{POLICY}mode = \"no\"\nnot-after = 2027-01-01\n[[policy.egress]]\nto = [{{ cidr = \"x\" }}, {{ workload = \"y\" }}]\nports = [\"0/tcp\", \"1/abc\"]\n[[workload]]\n"
    );
    let errors = parse_one(&text).unwrap_err();
    let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [9, 10, 12, 12, 13, 13, 14, 14], "{errors:#?}");
    assert!(errors.iter().all(|error| !error.remedy.is_empty()));
}

#[test]
fn workloads_can_not_be_mistaken_for_something_else() {
    let workload = |name: &str| {
        document(
            "a.toml",
            &format!("[[workload]]\nname = \"{name}\"\nmatch = {{ uid = 1 }}\n"),
        )
    };
    for (name, what) in [
        ("host", "stands for a reserved identity in flow records"),
        (
            "unknown(300)",
            "stands for a reserved identity in flow records",
        ),
        ("10.0.0.1", "reads as an address"),
        ("10.0.0.0/8", "reads as an address"),
        ("[::1]", "reads as an address"),
        (
            "web@10.0.0.1",
            "reads as a workload and its address (`NAME@ADDRESS`)",
        ),
        (
            "web@",
            "reads as a workload and its address (`NAME@ADDRESS`)",
        ),
    ] {
        let errors = parse(&[workload(name)]).unwrap_err();
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let expected = format!(
            "a.toml:2: a workload can't be called {name:?}: that {what}; choose another name"
        );
        assert_eq!(errors, [expected]);
    }
    for (name, _) in RESERVED {
        assert!(parse(&[workload(name)]).is_err(), "{name}");
    }
    for name in ["hosts", "agent-1", "10.0.0", "a/b", "unknown-1"] {
        assert!(parse(&[workload(name)]).is_ok(), "{name}");
    }
    // A policy is never taken for a peer.
    let policy = "[[policy]]\nname = \"host\"\napplies-to = { app = \"web\" }\n";
    assert!(parse(&[document("a.toml", policy)]).is_ok());
}
