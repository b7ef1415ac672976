//! From the keys as they are written to the valid configuration. Defaults stand here, once.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Config, DEFAULT_LISTEN, Listen, Tls, read::Reader};

const POLICY_DIR: &str = "/etc/ringfence/controller/policy.d";
const STATE_DIR: &str = "/var/lib/ringfence-controller";
const MAX_AGENTS: usize = 16_384;

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected an address like \"unix:/PATH\" or \"IP:PORT\", or an array of them"
)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// Reads every key; relative paths start at `base`. The result is valid only if there is no problem.
pub(super) fn config(reader: &mut Reader<'_>, base: &Path) -> Config {
    let tls = tls(reader, base);
    // What is wrong inside [tls] does not make an address one without TLS.
    let secured = reader.place("tls").is_some();
    Config {
        listen: listen(reader, secured),
        max_agents: max_agents(reader),
        tls,
        policy_dir: path(reader, base, "store", "policy-dir").unwrap_or_else(|| POLICY_DIR.into()),
        state_dir: path(reader, base, "store", "state-dir").unwrap_or_else(|| STATE_DIR.into()),
    }
}

fn listen(reader: &mut Reader<'_>, secured: bool) -> Vec<Listen> {
    let Some(written) = reader.take::<OneOrMore>("server", "listen") else {
        return listen_address(DEFAULT_LISTEN, secured)
            .into_iter()
            .collect();
    };
    let span = written.span();
    let addresses = match written.into_inner() {
        OneOrMore::One(address) => vec![address],
        OneOrMore::More(addresses) => addresses,
    };
    if addresses.is_empty() {
        let message = format!("[server] listen is empty; write {DEFAULT_LISTEN:?} or leave it out");
        reader.problem(&span, message);
    }
    let mut listen = Vec::new();
    for address in addresses {
        match listen_address(&address, secured) {
            Ok(address) => listen.push(address),
            Err(message) => reader.problem(&span, format!("[server] listen: {message}")),
        }
    }
    listen
}

fn listen_address(text: &str, secured: bool) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if Path::new(path).is_absolute() {
            Ok(Listen::Unix(path.into()))
        } else {
            Err(format!("{text:?} needs an absolute path: unix:/PATH"))
        };
    }
    let address: SocketAddr = text.parse().map_err(|_| {
        format!("{text:?} is not an address; write \"unix:/PATH\" or a numeric \"IP:PORT\"")
    })?;
    if !secured && !address.ip().is_loopback() {
        return Err(format!(
            "{text:?} would serve policy in the clear to anybody; add [tls] with cert, key and client-ca, or listen on a \
             unix socket or a loopback address"
        ));
    }
    Ok(Listen::Tcp(address))
}

fn max_agents(reader: &mut Reader<'_>) -> usize {
    let agents = reader.take::<i64>("server", "max-agents");
    let valid = |agents: i64| {
        usize::try_from(agents)
            .ok()
            .filter(|n| (1..=1_000_000).contains(n))
    };
    match agents {
        None => MAX_AGENTS,
        Some(agents) => valid(*agents.get_ref()).unwrap_or_else(|| {
            let message = format!(
                "[server] max-agents can't be {}; write a number from 1 to 1000000",
                agents.get_ref()
            );
            reader.problem(&agents.span(), message);
            MAX_AGENTS
        }),
    }
}

/// `None` without the table, or with a problem in it.
fn tls(reader: &mut Reader<'_>, base: &Path) -> Option<Tls> {
    let span = reader.place("tls")?;
    let mut file = |key| {
        let is_written = reader.has("tls", key);
        let file = path(reader, base, "tls", key);
        if !is_written {
            reader.problem(&span, format!("[tls] has no {key}; write {key} = \"FILE\""));
        }
        file
    };
    let (cert, key, client_ca) = (file("cert"), file("key"), file("client-ca"));
    let verify_host = reader.take::<bool>("tls", "verify-host");
    Some(Tls {
        cert: cert?,
        key: key?,
        client_ca: client_ca?,
        verify_host: verify_host.is_none_or(toml::Spanned::into_inner),
    })
}

fn path(reader: &mut Reader<'_>, base: &Path, table: &str, key: &str) -> Option<PathBuf> {
    let path = reader.take::<PathBuf>(table, key)?;
    if path.get_ref().as_os_str().is_empty() {
        let message = format!("[{table}] {key} is empty; write a path, or leave it out");
        reader.problem(&path.span(), message);
    }
    Some(base.join(path.into_inner()))
}
