//! Policies that let the bench's client talk to its server, and nothing else.

use std::{collections::BTreeSet, fmt::Write as _};

use ringfence_policy::compile::derive_identity;

/// What the client may call.
const PORTS: &str = r#"["7000/tcp", "7001/tcp", "7002/udp", "7080/tcp", "7379/tcp"]"#;
/// The two ends of the veth pair, where the other end is known by its address only.
const ADDRESSES: &str = r#"{ cidr = "10.99.0.0/24" }, { cidr = "fd99::/64" }"#;
/// The ports of those whom nobody calls: every other one from here, so that none merge into a range.
const FILLER_PORT: u32 = 20_000;

/// Client and server are workloads that no policy selects.
pub fn none() -> String {
    ["client", "server"].map(workload).concat()
}

/// Allow lists of client and server, and `entries` more of the client: `identities` workloads with the same
/// number of ports each.
pub fn allow(entries: u32, identities: u32) -> String {
    let mut text = none() + &lists("", "enforce", PORTS);
    for (number, name) in names("other-").take(identities as usize).enumerate() {
        let _ = writeln!(
            text,
            "[[workload]]\nname = \"{name}\"\nlabels = {{ app = \"other\" }}\n\
             match = {{ cgroup = \"/other/{number}\" }}"
        );
    }
    let ports: Vec<String> = (0..entries / identities)
        .map(|number| format!("\"{}/tcp\"", FILLER_PORT + 2 * number))
        .collect();
    let _ = writeln!(
        text,
        "[[policy]]\nname = \"others\"\napplies-to = {{ app = \"client\" }}\n\
         [[policy.egress]]\nto = [{{ labels = {{ app = \"other\" }} }}]\nports = [{}]",
        ports.join(", ")
    );
    text
}

/// Names of which no two have the same identity: agents refuse those.
pub fn names(prefix: &str) -> impl Iterator<Item = String> {
    let mut taken = BTreeSet::from(["client", "server"].map(derive_identity));
    let all = (0_u32..).map(move |number| format!("{prefix}{number}"));
    all.filter(move |name| taken.insert(derive_identity(name)))
}

/// Enforced allow lists, and draft ones beside them that would refuse most of it.
pub fn with_draft() -> String {
    none() + &lists("", "enforce", PORTS) + &lists("-draft", "draft", r#"["7000/tcp"]"#)
}

/// Allow lists, and `count` prefixes that the client may reach besides.
pub fn with_cidrs(count: u32) -> String {
    let mut text = none() + &lists("", "enforce", PORTS);
    text += "[[policy]]\nname = \"prefixes\"\napplies-to = { app = \"client\" }\n[[policy.egress]]\nto = [\n";
    for number in 0..count {
        let [_, high, middle, low] = number.to_be_bytes();
        let _ = writeln!(text, "{{ cidr = \"{}.{middle}.{low}.1/32\" }},", 100 + high);
    }
    text + "]\nports = [\"20000/tcp\"]\n"
}

fn workload(name: &str) -> String {
    format!(
        "[[workload]]\nname = \"{name}\"\nlabels = {{ app = \"{name}\" }}\nmatch = {{ cgroup = \"/{name}\" }}\n"
    )
}

fn lists(suffix: &str, mode: &str, ports: &str) -> String {
    let list = |name: &str, direction: &str, peers: &str, other: &str| {
        format!(
            "[[policy]]\nname = \"{name}{suffix}\"\nmode = \"{mode}\"\napplies-to = {{ app = \"{name}\" }}\n\
             [[policy.{direction}]]\n{peers} = [{{ workload = \"{other}\" }}, {ADDRESSES}]\nports = {ports}\n"
        )
    };
    list("client", "egress", "to", "server") + &list("server", "ingress", "from", "client")
}

/// The client may call nobody.
pub fn revoked() -> String {
    none() + &lists("", "enforce", r#"["1/tcp"]"#)
}
