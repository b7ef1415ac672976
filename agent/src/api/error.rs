//! Why the interface can't be served, and what to do.

use std::{io, path::PathBuf};

use thiserror::Error;

/// The interface can't be served.
#[derive(Debug, Error)]
pub enum ApiError {
    /// Another agent answers on the socket.
    #[error(
        "{}: another agent{} serves this socket; stop it, or set `unix` in section [api] to another path",
        path.display(),
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
        /// The process that listens on it.
        pid: Option<i32>,
    },
    /// Something that is no socket stands at the path.
    #[error(
        "{}: not a socket; remove it, or set `unix` in section [api] to another path",
        path.display()
    )]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The socket can't be made.
    #[error(
        "{}: the socket can't be made: {source}; set `unix` in section [api] to {}",
        path.display(),
        better(source)
    )]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server failed.
    #[error("the gRPC server failed: {0}; restart the agent")]
    Serve(#[from] tonic::transport::Error),
    /// The descriptors of the services can't be read.
    #[error("the gRPC descriptors are damaged: {0}; reinstall the agent")]
    Descriptors(#[from] tonic_reflection::server::Error),
}

/// What kind of path would do.
fn better(source: &io::Error) -> &'static str {
    // So says the standard library where the address of a unix socket has no room for the path.
    if source.kind() == io::ErrorKind::InvalidInput {
        "a shorter path"
    } else {
        "a path in a directory that the agent may write to"
    }
}
