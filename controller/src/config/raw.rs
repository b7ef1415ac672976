//! The configuration as it is written.

use std::{
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::Spanned;

use super::{Config, ConfigError, Listen, Tls};

const LISTEN: &str = "unix:/run/ringfence/controller.sock";
const POLICY_DIR: &str = "/etc/ringfence/controller/policy.d";
const STATE_DIR: &str = "/var/lib/ringfence-controller";
const MAX_AGENTS: usize = 16_384;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Raw {
    server: Server,
    tls: Option<RawTls>,
    store: Store,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Server {
    listen: Option<Spanned<OneOrMore>>,
    max_agents: Option<Spanned<usize>>,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected an address like \"unix:/PATH\" or \"IP:PORT\", or an array of them"
)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawTls {
    cert: PathBuf,
    key: PathBuf,
    client_ca: PathBuf,
    #[serde(default = "yes")]
    verify_host: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Store {
    policy_dir: Option<Spanned<PathBuf>>,
    state_dir: Option<Spanned<PathBuf>>,
}

pub(super) fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let raw: Raw = toml::from_str(text).map_err(|error| {
        let byte = error.span().map_or(0, |span| span.start);
        ConfigError::at(path, text, byte, error.message())
    })?;
    let invalid =
        |span: Range<usize>, message: String| ConfigError::at(path, text, span.start, message);

    let (span, addresses) = match raw.server.listen {
        None => (0..0, OneOrMore::One(LISTEN.into())),
        Some(listen) => (listen.span(), listen.into_inner()),
    };
    let addresses = match addresses {
        OneOrMore::One(address) => vec![address],
        OneOrMore::More(addresses) => addresses,
    };
    if addresses.is_empty() {
        let message = format!("listen is empty; write {LISTEN:?} or leave it out");
        return Err(invalid(span, message));
    }
    let listen = addresses
        .iter()
        .map(|address| listen_address(address, raw.tls.is_some()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|message| invalid(span, message))?;

    let max_agents = match raw.server.max_agents {
        None => MAX_AGENTS,
        Some(agents) if (1..=1_000_000).contains(agents.get_ref()) => agents.into_inner(),
        Some(agents) => {
            let message = "max-agents is a number from 1 to 1000000".into();
            return Err(invalid(agents.span(), message));
        }
    };
    let absolute = |dir: Option<Spanned<PathBuf>>, default: &str| match dir {
        None => Ok(PathBuf::from(default)),
        Some(dir) if dir.get_ref().is_absolute() => Ok(dir.into_inner()),
        Some(dir) => Err(invalid(
            dir.span(),
            "write an absolute path, beginning with /".into(),
        )),
    };
    let base = path.parent().unwrap_or(Path::new(""));
    Ok(Config {
        listen,
        max_agents,
        tls: raw.tls.map(|tls| Tls {
            cert: base.join(tls.cert),
            key: base.join(tls.key),
            client_ca: base.join(tls.client_ca),
            verify_host: tls.verify_host,
        }),
        policy_dir: absolute(raw.store.policy_dir, POLICY_DIR)?,
        state_dir: absolute(raw.store.state_dir, STATE_DIR)?,
    })
}

fn listen_address(text: &str, tls: bool) -> Result<Listen, String> {
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
    if !tls && !address.ip().is_loopback() {
        return Err(format!(
            "{text:?} would serve policy in the clear to anybody; add [tls] with cert, key and client-ca, or listen on a \
             unix socket or a loopback address"
        ));
    }
    Ok(Listen::Tcp(address))
}
