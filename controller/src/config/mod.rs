//! Configuration: one TOML file in, one valid [`Config`] out.
//!
//! Every problem of a file is reported at once, with its line; a key that nobody knows is one, with the key
//! that was probably meant.

mod error;
mod raw;
mod read;
#[cfg(test)]
mod tests;

pub use error::{ConfigError, Problem};

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Where agents and operators of this host connect unless told otherwise.
pub const DEFAULT_LISTEN: &str = "unix:/run/ringfence-controller/controller.sock";

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
    /// The file cannot be read, or everything that is wrong in it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| ConfigError::Read {
            path: path.to_owned(),
            error,
        })?;
        Self::parse(path, &text)
    }

    /// Validates the text of a file; relative paths start at its directory.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let base = absolute.parent().unwrap_or(Path::new("/"));
        let mut reader = read::Reader::new(text);
        let config = raw::config(&mut reader, base);
        let problems = reader.finish();
        if problems.is_empty() {
            return Ok(config);
        }
        Err(ConfigError::Invalid {
            path: path.to_owned(),
            problems,
        })
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
