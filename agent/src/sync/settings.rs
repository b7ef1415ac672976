//! Where the controller is and how to trust it.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ringfence_proto::limits;
use thiserror::Error;

/// Valid settings of synchronisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    endpoints: Vec<Endpoint>,
    tls: Option<Tls>,
    host: String,
    version: String,
}

/// PEM files of mutual TLS; they are read again for each connection, so that they can be renewed in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificates that the controller's certificate must lead to.
    pub ca: PathBuf,
    /// The agent's certificate chain; names the host.
    pub cert: PathBuf,
    /// The agent's private key.
    pub key: PathBuf,
}

/// One address of the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp {
        /// Name or numeric address, without brackets.
        host: String,
        /// Port.
        port: u16,
        /// Mutual TLS; without it, the host is loopback.
        tls: bool,
    },
}

/// What is wrong with the settings; [`SettingsError::remedy`] tells what to do.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SettingsError {
    /// Not an endpoint.
    #[error("{0:?} is not an endpoint")]
    Endpoint(String),
    /// Policy would travel in the clear.
    #[error("{0:?} would carry policy in the clear")]
    Clear(String),
    /// No endpoint.
    #[error("no controller is named")]
    NoEndpoint,
    /// An https endpoint without certificates.
    #[error("{0} needs `ca`, `cert` and `key`")]
    NoTls(Endpoint),
    /// A host name that the controller would refuse.
    #[error("the name of this host, {0:?}, is empty, longer than 255 bytes or not printable")]
    Host(String),
}

impl SettingsError {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Endpoint(_) => "write https://HOST:PORT, http://127.0.0.1:PORT or unix:/PATH",
            Self::Clear(_) => {
                "use https:// with `ca`, `cert` and `key`; plain http is for loopback only"
            }
            Self::NoEndpoint => "set `endpoints`, or remove the section",
            Self::NoTls(_) => "set all three",
            Self::Host(_) => "set `host`",
        }
    }
}

impl Settings {
    /// Checks the settings against each other.
    ///
    /// # Errors
    /// No endpoint, an https endpoint without certificates, or an unusable host name.
    pub fn new(
        endpoints: Vec<Endpoint>,
        tls: Option<Tls>,
        host: String,
        version: String,
    ) -> Result<Self, SettingsError> {
        if endpoints.is_empty() {
            return Err(SettingsError::NoEndpoint);
        }
        if tls.is_none()
            && let Some(endpoint) = endpoints
                .iter()
                .find(|endpoint| matches!(endpoint, Endpoint::Tcp { tls: true, .. }))
        {
            return Err(SettingsError::NoTls(endpoint.clone()));
        }
        if !limits::is_name(&host) {
            return Err(SettingsError::Host(host));
        }
        Ok(Self {
            endpoints,
            tls,
            host,
            version,
        })
    }

    /// Addresses of the controller, at least one, in the order in which they are tried.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Files of mutual TLS.
    #[must_use]
    pub const fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Name of this host.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Version of the agent.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl Endpoint {
    /// Reads `https://HOST:PORT`, `http://LOOPBACK:PORT` or `unix:/PATH`.
    ///
    /// # Errors
    /// Another form, or http to an address that is not loopback.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let wrong = || SettingsError::Endpoint(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if Path::new(path).is_absolute() && !path.contains('\0') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(wrong())
            };
        }
        let (authority, tls) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(authority), _) => (authority, true),
            (None, Some(authority)) => (authority, false),
            (None, None) => return Err(wrong()),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let host = host_of(host).ok_or_else(wrong)?;
        if port == 0 {
            return Err(wrong());
        }
        if !tls && !is_loopback(&host) {
            return Err(SettingsError::Clear(text.to_owned()));
        }
        Ok(Self::Tcp { host, port, tls })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Self::Tcp { host, port, tls } => {
                let scheme = if *tls { "https" } else { "http" };
                if host.contains(':') {
                    write!(formatter, "{scheme}://[{host}]:{port}")
                } else {
                    write!(formatter, "{scheme}://{host}:{port}")
                }
            }
        }
    }
}

/// A DNS name, or a numeric address (IPv6 in brackets); brackets are taken off.
fn host_of(text: &str) -> Option<String> {
    if let Some(address) = text.strip_prefix('[') {
        let address = address.strip_suffix(']')?;
        let IpAddr::V6(address) = address.parse().ok()? else {
            return None;
        };
        return Some(address.to_string());
    }
    let allowed = |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
    (!text.is_empty() && text.chars().all(allowed)).then(|| text.to_owned())
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, Settings, SettingsError};

    #[test]
    fn endpoints_round_trip() {
        for text in [
            "https://controller.example:8443",
            "https://10.0.0.1:8443",
            "https://[2001:db8::1]:8443",
            "http://127.0.0.1:8443",
            "http://[::1]:8443",
            "http://localhost:1",
            "unix:/run/ringfence-controller/controller.sock",
        ] {
            let parsed = Endpoint::parse(text).map(|endpoint| endpoint.to_string());
            assert_eq!(parsed.as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_not_an_endpoint_is_refused() {
        for text in [
            "",
            "controller:8443",
            "https://controller",
            "https://:8443",
            "https://a:0",
            "https://a:99999",
            "https://a/b:1",
            "https://u@a:1",
            "https://[::1:1",
            "https://[127.0.0.1]:1",
            "unix:relative",
            "unix:",
            "ftp://a:1",
        ] {
            assert_eq!(
                Endpoint::parse(text),
                Err(SettingsError::Endpoint(text.to_owned()))
            );
        }
    }

    #[test]
    fn policy_never_travels_in_the_clear() {
        let text = "http://10.0.0.1:8443";
        assert_eq!(
            Endpoint::parse(text),
            Err(SettingsError::Clear(text.to_owned()))
        );
        let Ok(endpoint) = Endpoint::parse("https://a:1") else {
            panic!("an endpoint");
        };
        let settings = Settings::new(vec![endpoint.clone()], None, "h".into(), "v".into());
        assert_eq!(settings.err(), Some(SettingsError::NoTls(endpoint)));
    }
}
