//! Sockets: who may connect, and who else listens there already.

pub mod tls;
mod unix;

pub use unix::UnixSocket;

use std::{io, net::SocketAddr, path::PathBuf};

use thiserror::Error;
use tokio::net::TcpListener;

/// Why there is no socket to serve on.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Somebody answers there.
    #[error("{0} is in use: another controller answers there; stop it, or change [server] listen")]
    InUse(String),
    /// Something that is not a socket has the name.
    #[error("{file} exists and is not a socket; remove it, or change [server] listen", file = .0.display())]
    NotASocket(PathBuf),
    /// Anything else.
    #[error("cannot listen on {address}: {error}; check [server] listen")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// A PEM file cannot be read.
    #[error("cannot read {file}: {error}; check [tls]", file = .path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The PEM files are not what TLS needs.
    #[error(
        "the certificates are unusable: {0}; [tls] needs PEM files: cert with its chain, its key, and client-ca"
    )]
    Tls(String),
}

/// Listens on a TCP address.
///
/// # Errors
/// The address is in use or not this host's.
pub async fn tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            return ListenError::InUse(address.to_string());
        }
        ListenError::Listen {
            address: address.to_string(),
            error,
        }
    })
}
