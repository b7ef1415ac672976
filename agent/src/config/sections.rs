//! From the keys of each section to the valid configuration. Defaults stand here, once.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use toml::Spanned;

use super::{
    Agent, CgroupRoot, Config, DEFAULT_SOCKET, Flows, Log, LogFormat, Mode, Unselected, failsafe,
    read::{Document, Section},
    refusal,
    size::Size,
    values::{choice, number, path, text},
};
use crate::{
    identity::{HASH_LIMIT, HASH_RATE},
    runtime,
    sync::{self, Endpoint, Tls},
};

const CAPACITY: u64 = 65_536;
const MAX_CAPACITY: u64 = 1 << 22;
const EVENTS_BUFFER: u32 = 4 << 20;
const MIN_EVENTS_BUFFER: u32 = 64 << 10;
const MAX_EVENTS_BUFFER: u32 = 1 << 30;
const FLOW_ENTRIES: u64 = 65_536;
const MAX_FLOW_ENTRIES: u64 = 1 << 24;
const LEAST_HASH_RATE: u64 = 1 << 20;
const PENDING_SECONDS: u64 = 5;
const MAX_PENDING_SECONDS: u64 = 600;
const METRICS: &str = "127.0.0.1:9477";

/// Reads every section. The result is valid only if the document has no problem.
pub(super) fn config(document: &mut Document<'_>, base: &Path) -> Config {
    let mut warnings = Vec::new();
    let agent = agent(document.section("agent"), base);
    let controller = controller(document.section("controller"), base);
    let api_socket = api(document.section("api"), base);
    let metrics = metrics(document.section("metrics"), &mut warnings);
    let flows = flows(document.section("flows"));
    let refusal = refusal::read(document.section("refusal"));
    let containers = containers(document.section("containers"), base);
    let failsafe = {
        let mut section = document.section("failsafe");
        let entries = failsafe::read(&mut section);
        section.finish();
        entries
    };
    let log = log(document.section("log"));
    if failsafe.is_empty() {
        warnings.push(
            "the failsafe list is empty: a wrong policy can cut your own access to this host; \
             name your administration networks in [failsafe] inbound"
                .to_owned(),
        );
    }
    if agent.mode == Mode::Draft {
        warnings.push("mode is `draft`: nothing is blocked, whatever the policies say".to_owned());
    }
    Config {
        agent,
        controller,
        api_socket,
        metrics,
        flows,
        refusal,
        containers,
        failsafe,
        log,
        warnings,
    }
}

fn agent(mut section: Section<'_, '_>, base: &Path) -> Agent {
    let cgroup_root = match text(&mut section, "cgroup-root") {
        Some(root) if root != "auto" => CgroupRoot::Path(base.join(root)),
        Some(_) | None => CgroupRoot::Auto,
    };
    let agent = Agent {
        cgroup_root,
        mode: choice(
            &mut section,
            "mode",
            &[("enforce", Mode::Enforce), ("draft", Mode::Draft)],
            Mode::Enforce,
        ),
        unselected: choice(
            &mut section,
            "unselected",
            &[("allow", Unselected::Allow), ("deny", Unselected::Deny)],
            Unselected::Allow,
        ),
        policy_dir: path(&mut section, "policy-dir", base)
            .unwrap_or_else(|| "/etc/ringfence/policy.d".into()),
        state_dir: path(&mut section, "state-dir", base)
            .unwrap_or_else(|| "/var/lib/ringfence".into()),
        pin_dir: path(&mut section, "pin-dir", base)
            .unwrap_or_else(|| "/sys/fs/bpf/ringfence".into()),
        pending: Duration::from_secs(number(
            &mut section,
            "pending-seconds",
            PENDING_SECONDS,
            MAX_PENDING_SECONDS,
        )),
        hash_limit: size(&mut section, "hash-limit", HASH_LIMIT, 0),
        hash_rate: size(&mut section, "hash-rate", HASH_RATE, LEAST_HASH_RATE),
    };
    section.finish();
    agent
}

fn size(section: &mut Section<'_, '_>, key: &'static str, default: u64, least: u64) -> u64 {
    let Some(size) = section.take::<Size>(key) else {
        return default;
    };
    let bytes = size.get_ref().bytes().filter(|bytes| *bytes >= least);
    bytes.unwrap_or_else(|| {
        let message = format!("`agent.{key}` is not a size of {least} bytes or more");
        section.problem(&size.span(), message, "write a size such as \"512 MiB\"");
        default
    })
}

/// `None` without the section, or with a problem in it.
fn controller(mut section: Section<'_, '_>, base: &Path) -> Option<sync::Settings> {
    let endpoints = endpoints(&mut section);
    let files = ["ca", "cert", "key"].map(|key| path(&mut section, key, base));
    let host = text(&mut section, "host").unwrap_or_else(hostname);
    let span = section.span();
    let settings = match (section.is_present(), endpoints, tls(files)) {
        (false, _, _) | (true, None, _) => None,
        (true, Some(_), Err(())) => {
            let message = "`ca`, `cert` and `key` belong together".to_owned();
            section.problem(&span, message, "set all three, or none of them");
            None
        }
        (true, Some(endpoints), Ok(tls)) => {
            let version = env!("CARGO_PKG_VERSION").to_owned();
            sync::Settings::new(endpoints, tls, host, version)
                .inspect_err(|error| section.problem(&span, error.to_string(), error.remedy()))
                .ok()
        }
    };
    section.finish();
    settings
}

/// Empty without the key; `None` with a problem in its value.
fn endpoints(section: &mut Section<'_, '_>) -> Option<Vec<Endpoint>> {
    let texts = section.take::<Vec<Spanned<String>>>("endpoints");
    let mut endpoints = Vec::new();
    let mut valid = true;
    for text in texts.iter().flat_map(Spanned::get_ref) {
        match Endpoint::parse(text.get_ref()) {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(error) => {
                section.problem(&text.span(), error.to_string(), error.remedy());
                valid = false;
            }
        }
    }
    valid.then_some(endpoints)
}

/// All three files of mutual TLS or none of them.
fn tls(files: [Option<PathBuf>; 3]) -> Result<Option<Tls>, ()> {
    match files {
        [None, None, None] => Ok(None),
        [Some(ca), Some(cert), Some(key)] => Ok(Some(Tls { ca, cert, key })),
        _ => Err(()),
    }
}

fn api(mut section: Section<'_, '_>, base: &Path) -> PathBuf {
    let socket = path(&mut section, "unix", base).unwrap_or_else(|| DEFAULT_SOCKET.into());
    section.finish();
    socket
}

fn metrics(mut section: Section<'_, '_>, warnings: &mut Vec<String>) -> Option<SocketAddr> {
    let text = section
        .take::<String>("listen")
        .unwrap_or_else(|| Spanned::new(0..0, METRICS.to_owned()));
    let listen = match text.get_ref().as_str() {
        "" => None,
        address => {
            let parsed = address.parse::<SocketAddr>().ok();
            if parsed.is_none() {
                section.problem(
                    &text.span(),
                    format!("`{address}` is no address"),
                    "write ADDRESS:PORT as in \"127.0.0.1:9477\", or \"\" for no metrics",
                );
            }
            parsed
        }
    };
    if listen.is_some_and(|address| !address.ip().is_loopback()) {
        warnings.push(
            "metrics are served beyond loopback without authentication: they name reasons and volumes of traffic"
                .to_owned(),
        );
    }
    section.finish();
    listen
}

fn flows(mut section: Section<'_, '_>) -> Flows {
    let capacity = number(&mut section, "capacity", CAPACITY, MAX_CAPACITY);
    let flow_entries = number(&mut section, "flow-entries", FLOW_ENTRIES, MAX_FLOW_ENTRIES);
    let events_buffer = events_buffer(&mut section);
    section.finish();
    Flows {
        capacity: usize::try_from(capacity).unwrap_or(usize::MAX),
        events_buffer,
        flow_entries: u32::try_from(flow_entries).unwrap_or(u32::MAX),
    }
}

fn events_buffer(section: &mut Section<'_, '_>) -> u32 {
    let Some(size) = section.take::<Size>("events-buffer") else {
        return EVENTS_BUFFER;
    };
    let bytes = size
        .get_ref()
        .bytes()
        .and_then(|bytes| u32::try_from(bytes).ok());
    match bytes {
        Some(bytes)
            if bytes.is_power_of_two()
                && (MIN_EVENTS_BUFFER..=MAX_EVENTS_BUFFER).contains(&bytes) =>
        {
            bytes
        }
        other => {
            let nearest = other
                .map_or(EVENTS_BUFFER, |bytes| {
                    bytes.min(MAX_EVENTS_BUFFER).next_power_of_two()
                })
                .max(MIN_EVENTS_BUFFER);
            section.problem(
                &size.span(),
                "`flows.events-buffer` is not a power of two from 64 KiB to 1 GiB".to_owned(),
                &format!("write for example \"{} KiB\"", nearest >> 10),
            );
            EVENTS_BUFFER
        }
    }
}

/// Sockets of one kind of container runtime, as they stand in the file.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a list of paths, or \"auto\"")]
enum Sockets {
    Paths(Vec<String>),
    Word(String),
}

fn containers(mut section: Section<'_, '_>, base: &Path) -> runtime::Settings {
    let [docker, cri] = ["docker", "cri"].map(|key| sockets(&mut section, key, base));
    section.finish();
    runtime::Settings::new(docker, cri)
}

/// `None` = the well-known ones.
fn sockets(section: &mut Section<'_, '_>, key: &'static str, base: &Path) -> Option<Vec<PathBuf>> {
    let value = section.take::<Sockets>(key)?;
    let span = value.span();
    let paths = match value.into_inner() {
        Sockets::Word(word) if word == "auto" => return None,
        Sockets::Word(word) => {
            let remedy = format!("write `{key} = [\"{word}\"]`, or \"auto\"");
            section.problem(&span, format!("`{key}` can't be `{word}`"), &remedy);
            return None;
        }
        Sockets::Paths(paths) => paths,
    };
    let mut sockets: Vec<PathBuf> = Vec::new();
    for path in paths {
        let socket = base.join(&path);
        if path.is_empty() || sockets.contains(&socket) {
            let message = format!("`{path}` in `{key}` is empty or there twice");
            section.problem(&span, message, "name each socket once");
        }
        sockets.push(socket);
    }
    Some(sockets)
}

fn log(mut section: Section<'_, '_>) -> Log {
    use tracing::Level;
    let level = choice(
        &mut section,
        "level",
        &[
            ("error", Level::ERROR),
            ("warn", Level::WARN),
            ("info", Level::INFO),
            ("debug", Level::DEBUG),
            ("trace", Level::TRACE),
        ],
        Level::INFO,
    );
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = choice(&mut section, "format", &formats, LogFormat::Text);
    section.finish();
    Log { level, format }
}

/// The host's name, empty if it has none that is text.
fn hostname() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default()
}
