//! The tables of small policies, entry by entry.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod address;
mod identity;
mod layers;
mod limits;
mod next;
mod rule_id;

use std::sync::Arc;

use ringfence_common::abi::{Direction, RuleEntry, RuleKey};
use time::OffsetDateTime;

use super::{Compiled, Context, Table, compile};
use crate::{
    model::{Document, Identities, PolicySet},
    parse::parse,
};

/// Two workloads with the identities 1000 (web) and 2000 (db), and the policy `p` for web.
const WORKLOADS: &str = r#"
[[workload]]
name = "web"
labels = { app = "web" }
match = { uid = 1 }
[[workload]]
name = "db"
labels = { app = "db" }
match = { uid = 2 }
"#;
const POLICY: &str = "[[policy]]\nname = \"p\"\napplies-to = { app = \"web\" }\n";
const WEB: u32 = 1000;
const DB: u32 = 2000;
const BOOT_NS: u64 = 5_000_000_000;

fn set(policies: &str) -> PolicySet {
    let document = Document {
        name: "a.toml".to_owned(),
        text: format!("{WORKLOADS}{policies}").into(),
    };
    parse(&[document]).unwrap()
}

fn identities() -> Identities {
    Identities::from([("web".to_owned(), WEB), ("db".to_owned(), DB)])
}

/// 2026-01-01T00:00:00Z, five seconds after the boot.
fn context() -> Context {
    Context {
        now: OffsetDateTime::from_unix_timestamp(1_767_225_600).unwrap(),
        boot_now_ns: BOOT_NS,
        deny_unselected: false,
    }
}

fn compiled(policies: &str) -> Compiled {
    compile(&set(policies), &identities(), &context()).unwrap()
}

/// The table of web under policy `p` with these lines.
fn table(lines: &str) -> Table {
    compiled(&format!("{POLICY}{lines}"))
        .tables
        .remove(&WEB)
        .map(Arc::unwrap_or_clone)
        .unwrap()
}

fn key(direction: Direction, peer: u32, protocol: u8, port: u16, prefix: u8) -> RuleKey {
    RuleKey {
        peer,
        port,
        protocol,
        prefix,
        direction: direction as u8,
        ..RuleKey::default()
    }
}

/// (deny until, allow until) of the enforced layer and of the draft layer.
fn times(entry: &RuleEntry) -> [(u64, u64); 2] {
    [entry.enforced, entry.draft].map(|layer| (layer.deny_until, layer.allow_until))
}
