//! Fuzz targets: every parser that sees bytes from outside, one function each.
//!
//! A target takes any bytes and must return: a panic, an overflow or an endless loop is a find. The inputs in
//! `corpus/TARGET/` are what coverage-guided runs (`cargo xtask fuzz TARGET`) kept, and every input that was ever
//! a find; the tests replay them, and changes of them, on each run.

use prost::Message;
use ringfence_agent::fuzz as agent;
use ringfence_common::logic::packet;
use ringfence_controller::sync::HostEndpoints;
use ringfence_policy::{
    compile::{Context, compile, derive_identities},
    model::Document,
    parse::parse,
};
use ringfence_proto::v1;

/// A parser and its name, which is also that of its directory in the corpus.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name.
    pub name: &'static str,
    /// Gives it bytes.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 12] = [
    target("policy", policy),
    target("config", agent::config),
    target("packet", packet),
    target("event", agent::event),
    target("docker", agent::docker),
    target("cri", agent::cri),
    target("token", agent::token),
    target("mounts", agent::mounts),
    target("script", agent::script),
    target("sync", agent::sync),
    target("api", agent::api),
    target("endpoints", endpoints),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// The target with a name.
#[must_use]
pub fn find(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// Policy documents: two, separated by a zero byte. What is refused is refused with place and remedy, and what is
/// taken compiles, or is refused by name.
fn policy(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let documents: Vec<Document> = text
        .splitn(2, '\0')
        .zip(["a.toml", "b.toml"])
        .map(|(text, name)| Document {
            name: name.to_owned(),
            text: text.into(),
        })
        .collect();
    let set = match parse(&documents) {
        Ok(set) => set,
        Err(found) => {
            assert!(!found.is_empty(), "refused without a reason");
            for diagnostic in found {
                let text = diagnostic.to_string();
                assert!(
                    text.starts_with("a.toml:") || text.starts_with("b.toml:"),
                    "{text}"
                );
            }
            return;
        }
    };
    let Ok(identities) = derive_identities(&set) else {
        return;
    };
    for deny_unselected in [false, true] {
        let context = Context {
            now: time::OffsetDateTime::UNIX_EPOCH,
            boot_now_ns: 1,
            deny_unselected,
        };
        if let Ok(compiled) = compile(&set, &identities, &context) {
            // A workload that is not compiled would be unselected.
            assert_eq!(
                compiled.tables.len(),
                set.workloads.len(),
                "a workload got lost"
            );
        }
    }
}

/// A packet as the hooks see it, from the network header on.
fn packet(bytes: &[u8]) {
    struct Slice<'b>(&'b [u8]);
    impl packet::Bytes for Slice<'_> {
        fn load<const N: usize>(&self, offset: u32, to: &mut [u8; N]) -> bool {
            let Some(from) = usize::try_from(offset)
                .ok()
                .and_then(|offset| self.0.get(offset..)?.first_chunk())
            else {
                return false;
            };
            *to = *from;
            true
        }
    }
    let _read = packet::parse(&Slice(bytes));
}

/// What an agent reports to the controller: reports, each with its length before it.
fn endpoints(mut bytes: &[u8]) {
    let mut host = HostEndpoints::default();
    while let Ok(report) = v1::EndpointReport::decode_length_delimited(&mut bytes) {
        if host.apply(report).is_err() {
            return;
        }
    }
}
