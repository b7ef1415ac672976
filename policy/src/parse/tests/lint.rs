//! Warnings.

use time::OffsetDateTime;

use super::parse_one;
use crate::parse::lint;

const WEB: &str = "[[workload]]\nname = \"web\"\nlabels = { app = \"web\" }\nmatch = { uid = 1 }\n";

fn warnings(policies: &str) -> Vec<String> {
    let set = parse_one(&format!("{WEB}{policies}")).unwrap();
    lint(&set, now()).iter().map(ToString::to_string).collect()
}

/// 2027-01-31T18:00:00Z.
fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_801_418_400).unwrap()
}

#[test]
fn a_useful_policy_has_no_warning() {
    assert!(
        warnings("[[policy]]\nname = \"p\"\napplies-to = { app = \"web\" }\n[[policy.egress]]\nto = [{ labels = { app = \"web\" } }]\n")
            .is_empty()
    );
}

#[test]
fn what_selects_or_matches_nothing_is_reported() {
    assert_eq!(
        warnings(
            "[[policy]]\nname = \"p\"\napplies-to = { app = \"api\" }\n[[policy.egress]]\nto = []\n[[policy.listen]]\nports = []\n[[policy.ingress]]\nfrom = [{ labels = { app = \"web\", z = \"1\" } }]\n[[policy]]\nname = \"q\"\napplies-to = { app = \"web\" }\n"
        ),
        [
            "a.toml:5: policy \"p\" selects no workload; correct `applies-to`, or declare the workload",
            "a.toml:8: the empty peer list of egress[0] of policy \"p\" matches nothing; name a peer, or leave the key out to match every peer",
            "a.toml:10: the empty ports list of listen[0] of policy \"p\" matches nothing; name a port, or leave the key out to match every port",
            "a.toml:12: labels app=web, z=1 in ingress[0] of policy \"p\" match no workload; correct them, or declare the workload",
            "a.toml:14: policy \"q\" has no rules; add rules or `default-deny`, or remove it",
        ]
    );
}

#[test]
fn a_peer_that_nothing_is_known_of_yet_is_reported() {
    let peer = |name: &str| {
        warnings(&format!(
            "[[policy]]\nname = \"p\"\napplies-to = {{ app = \"web\" }}\n[[policy.egress]]\nto = [{{ entity = \"{name}\" }}]\n"
        ))
    };
    assert_eq!(
        peer("remote-host"),
        [
            "a.toml:8: `remote-host` in egress[0] of policy \"p\" matches nobody: no identity of another host is known here; name its addresses with `cidr`, or use `world`"
        ]
    );
    assert!(peer("world").is_empty());
}

#[test]
fn deny_rules_alone_cut_a_workload_off() {
    let deny = "[[policy]]\nname = \"p\"\napplies-to = { app = \"web\" }\n[[policy.deny-egress]]\nto = [{ cidr = \"169.254.169.254/32\" }]\n";
    assert_eq!(
        warnings(deny),
        [
            "a.toml:8: `deny-egress` makes the workloads of policy \"p\" default-deny and nothing allows them anything; allow what they need with `[[policy.egress]]` (an empty one allows everything that is not denied)"
        ]
    );
    let allow = "[[policy]]\nname = \"q\"\napplies-to = { app = \"web\" }\n[[policy.egress]]\n";
    assert!(warnings(&format!("{deny}{allow}")).is_empty());
    assert!(
        warnings(&deny.replace("[[policy.d", "default-deny = [\"egress\"]\n[[policy.d")).is_empty()
    );
}

#[test]
fn rules_that_have_expired_are_reported() {
    let until = |end: &str| {
        warnings(&format!(
            "[[policy]]\nname = \"p\"\napplies-to = {{ app = \"web\" }}\nnot-after = {end}\n[[policy.egress]]\n"
        ))
    };
    assert_eq!(
        until("2027-01-31T19:00:00+01:00"),
        [
            "a.toml:5: the rules of policy \"p\" have expired, and it goes on to restrict its workloads; correct `not-after`, or remove the policy"
        ]
    );
    assert!(until("2027-01-31T18:00:01Z").is_empty());
}
