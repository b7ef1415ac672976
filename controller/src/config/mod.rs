//! Configuration: TOML -> raw (serde, private) -> valid [`Config`].
//!
//! A key that nobody knows is an error with file, line and the key that was probably meant.

mod error;
mod keys;
mod raw;
#[cfg(test)]
mod tests;

pub use error::ConfigError;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Valid configuration of the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where agents and operators connect; never empty.
    pub listen: Vec<Listen>,
    /// Most agents that are connected at the same time.
    pub max_agents: usize,
    /// Mutual TLS on every TCP address.
    pub tls: Option<Tls>,
    /// Directory of policy documents.
    pub policy_dir: PathBuf,
    /// Directory of generation and identities.
    pub state_dir: PathBuf,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A unix socket, for root only.
    Unix(PathBuf),
    /// A TCP address; without TLS it is loopback.
    Tcp(SocketAddr),
}

/// PEM files of mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The controller's certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Certificates that an agent's certificate must lead to.
    pub client_ca: PathBuf,
    /// The host name that an agent gives must stand in its certificate.
    pub verify_host: bool,
}

impl Config {
    /// Reads and validates a file.
    ///
    /// # Errors
    /// The file cannot be read, or the first thing that is wrong in it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| ConfigError::Read {
            path: path.to_owned(),
            error,
        })?;
        Self::parse(path, &text)
    }

    /// Validates the text of a file; relative paths of certificates start at its directory.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        keys::check(path, text)?;
        raw::parse(path, text)
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Self::Tcp(address) => write!(formatter, "{address}"),
        }
    }
}
