//! Keys of a policy, and selectors of a workload.

use super::{error_of_match, error_of_policy};
use crate::parse::tests::{document, parse};

#[test]
fn policy_keys() {
    assert_eq!(
        error_of_policy("mode = \"enforced\""),
        "a.toml:9: unknown mode \"enforced\"; did you mean `enforce`?"
    );
    assert_eq!(
        error_of_policy("default-deny = [\"egres\"]"),
        "a.toml:9: unknown direction \"egres\" in `default-deny`; did you mean `egress`?"
    );
}

#[test]
fn timestamps() {
    assert_eq!(
        error_of_policy("not-before = 2027-01-01T00:00:00Z\nnot-after = 2027-01-01T01:00:00+01:00"),
        "a.toml:10: the policy never holds: `not-before` is not earlier than `not-after`; swap them or correct one"
    );
    assert_eq!(
        error_of_policy("not-after = 2027-01-01T00:00:00"),
        "a.toml:9: `not-after` has no UTC offset; add the offset, such as 2027-01-01T00:00:00Z for UTC"
    );
    assert_eq!(
        error_of_policy("not-after = 2027-01-01"),
        "a.toml:9: `not-after` has no UTC offset; write date, time and offset, such as 2027-01-31T18:00:00Z"
    );
    assert_eq!(
        error_of_policy("not-after = \"2027-01-01T00:00:00Z\""),
        "a.toml:9: `not-after` is not a timestamp; write it without quotes, such as 2027-01-31T18:00:00Z"
    );
    assert_eq!(
        error_of_policy("not-after = 2026-06-30T23:59:60Z"),
        "a.toml:9: `not-after` is not a moment in time; write a date of the calendar and a time without leap seconds"
    );
}

#[test]
fn selectors() {
    let cases = [
        (
            "systemd-unt = \"a.service\"",
            "unknown selector `systemd-unt`; did you mean `systemd-unit`?",
        ),
        (
            "exe = \"bin/x\"",
            "exe \"bin/x\" is not an absolute path; write the whole path, such as \"/usr/bin/curl\"",
        ),
        (
            "exe = \"/usr//bin/./x/\"",
            "exe \"/usr//bin/./x/\" is not a normalised path of a file; write \"/usr/bin/x\"",
        ),
        (
            "exe = \"/usr/bin/../x\"",
            "exe \"/usr/bin/../x\" is not a normalised path of a file; write the path that `realpath` prints",
        ),
        (
            "exe = \"/\"",
            "exe \"/\" is not a normalised path of a file; write the path that `realpath` prints",
        ),
        (
            "sha256 = \"abc\"",
            "sha256 \"abc\" is not 64 hexadecimal digits; write what `sha256sum` prints for the executable",
        ),
        (
            "cgroup = \"system.slice/*\"",
            "cgroup \"system.slice/*\" is not a path below the guarded cgroup; start it with a slash: \"/system.slice/*\"",
        ),
        (
            "cgroup = \"/system.slice/\"",
            "cgroup \"/system.slice/\" is not a path below the guarded cgroup; write it without empty parts, `.`, `..` and a slash at the end",
        ),
        (
            "cgroup = \"/a[\"",
            "cgroup \"/a[\" is not a glob: unclosed character class; missing ']'; escape special characters with a backslash",
        ),
        (
            "systemd-user-slice = \"app\", uid = 1",
            "systemd-user-slice \"app\" is not the name of a slice; write the full name, such as \"system.slice\"",
        ),
        (
            "systemd-user-unit = \"app.slice\", uid = 1",
            "systemd-user-unit \"app.slice\" is not the name of a unit that has processes; write `systemd-user-slice = \"app.slice\"`",
        ),
        (
            "systemd-user-unit = \"app.service\", group = \"staff\"",
            "`systemd-user-unit` says nothing without a user: each names his units himself; add whose service manager it is: `user` or `uid`",
        ),
        (
            "systemd-unit = \"web\"",
            "systemd-unit \"web\" is not the name of a unit that has processes; write the full name with its type (.service, .scope, .socket, .mount, .swap)",
        ),
        (
            "systemd-unit = \"system.slice\"",
            "systemd-unit \"system.slice\" is not the name of a unit that has processes; write `systemd-slice = \"system.slice\"`",
        ),
        (
            "systemd-unit = \"web-*.service\"",
            "systemd-unit \"web-*.service\" is not the name of a unit that has processes; only `cgroup` takes wildcards: `cgroup = \"/system.slice/web-*.service\"`",
        ),
        (
            "systemd-user-unit = \"web[12].service\", uid = 1",
            "systemd-user-unit \"web[12].service\" is not the name of a unit that has processes; only `cgroup` takes wildcards: `cgroup = \"/system.slice/web-*.service\"`",
        ),
        (
            "systemd-slice = \"app-?.slice\"",
            "systemd-slice \"app-?.slice\" is not the name of a slice; only `cgroup` takes wildcards: `cgroup = \"/system.slice/web-*.service\"`",
        ),
        (
            "exe = \"/usr/*/bin/x\"",
            "exe \"/usr/*/bin/x\" is not the path of one file; only `cgroup` takes wildcards: `cgroup = \"/system.slice/web-*.service\"`",
        ),
        (
            "systemd-slice = \"web.service\"",
            "systemd-slice \"web.service\" is not the name of a slice; write the full name, such as \"system.slice\"",
        ),
        (
            "uid = -1",
            "uid is not a user id; write a number from 0 to 4294967294, or `user = \"name\"`",
        ),
        (
            "uid = \"root\"",
            "uid is not a user id; write a number from 0 to 4294967294, or `user = \"name\"`",
        ),
        (
            "uid = 4294967295",
            "uid is not a user id; write a number from 0 to 4294967294, or `user = \"name\"`",
        ),
        (
            "user = \"\"",
            "user \"\" is not the name of a user; write the name as in /etc/passwd, or `uid = 1000`",
        ),
        (
            "gid = -1",
            "gid is not a group id; write a number from 0 to 4294967294, or `group = \"name\"`",
        ),
        (
            "gid = \"wheel\"",
            "gid is not a group id; write a number from 0 to 4294967294, or `group = \"name\"`",
        ),
        (
            "gid = 4294967295",
            "gid is not a group id; write a number from 0 to 4294967294, or `group = \"name\"`",
        ),
        (
            "group = \"a b\"",
            "group \"a b\" is not the name of a group; write the name as in /etc/group, or `gid = 1000`",
        ),
    ];
    for (selector, expected) in cases {
        assert_eq!(error_of_match(selector), format!("a.toml:3: {expected}"));
    }
    let signed = format!("sha256 = \"{}\"", "+1".repeat(32));
    assert!(error_of_match(&signed).contains("is not 64 hexadecimal digits"));
}

#[test]
fn selector_of_the_future_says_so() {
    assert_eq!(
        error_of_match("parent = \"x\""),
        "a.toml:3: a process can't be selected by its parent: it becomes the child of another one when that ends, or as it likes; \
         say where it runs (`systemd-unit`, `cgroup`) or what it is (`exe`, `user`)"
    );
}

#[test]
fn selectors_of_containers_are_tables_with_known_keys() {
    let cases = [
        (
            "container = \"web\"",
            "selector `container` must be a table, not a string; write it as `{ key = value }`",
        ),
        (
            "container = {}",
            "selector `container` is empty; add at least one of: name, image, image-digest, label",
        ),
        (
            "container.nmae = \"web\"",
            "unknown selector `container.nmae`; did you mean `name`?",
        ),
        (
            "k8s.label.app = \"web\"",
            "unknown selector `k8s.label`; use one of: namespace, service-account, pod-name, pod-label",
        ),
        (
            "\"container.name\" = \"web\"",
            "unknown selector `\"container.name\"`; write it without quotes: `container.name = \"...\"`",
        ),
        (
            "container.name = 7",
            "`container.name` must be a string, not an integer; write a string",
        ),
        (
            "k8s.namespace = \"\"",
            "selector `k8s.namespace` has no value that a runtime could report; write the text as the runtime shows it",
        ),
        (
            "container.image-digest = \"sha256:12\"",
            "container.image-digest \"sha256:12\" is not `sha256:` with 64 hexadecimal digits; write what `podman inspect` or `crictl images --digests` shows",
        ),
        (
            "k8s.pod-label = {}",
            "`pod-label` of selector `k8s` is empty; name at least one label, such as `{ app = \"web\" }`",
        ),
    ];
    for (selector, expected) in cases {
        assert_eq!(error_of_match(selector), format!("a.toml:3: {expected}"));
    }
}

#[test]
fn same_selectors_are_a_tie_that_names_both() {
    let one = "[[workload]]\nname = \"a\"\nmatch = { uid = 7, exe = \"/bin/x\" }\n";
    let two = "[[workload]]\nname = \"b\"\nmatch = { exe = \"/bin/x\", uid = 7 }\n";
    let errors = parse(&[document("b.toml", two), document("a.toml", one)]).unwrap_err();
    let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "a.toml:1: workloads \"b\" (b.toml:1) and \"a\" match the same processes; add a selector to one of them, or make them one workload"
        ]
    );
}
