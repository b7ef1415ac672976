//! A connection to the agent.

use std::{io, path::Path, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use ringfence_proto::v1::agent_client::AgentClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::CliError;

/// Bytes of an answer at most: lists of tens of thousands of workloads fit.
const MAX_ANSWER: usize = 256 << 20;
/// How long to wait for the agent to accept.
const CONNECT: Duration = Duration::from_secs(5);
/// How long to wait for the beginning of an answer.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// Connects to the agent at `socket`.
pub(super) async fn connect(socket: &Path) -> Result<AgentClient<Channel>, CliError> {
    let channel = channel(socket, ANSWER).await?;
    Ok(AgentClient::new(channel).max_decoding_message_size(MAX_ANSWER))
}

/// A connection on which an answer may take so long to begin.
pub(super) async fn channel(socket: &Path, answer: Duration) -> Result<Channel, CliError> {
    let unreachable = |source| CliError::Unreachable {
        socket: socket.to_owned(),
        source,
    };
    // Tried once directly, for an error that says why.
    let _stream = tokio::time::timeout(CONNECT, UnixStream::connect(socket))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(unreachable)?;
    let path: Arc<Path> = Arc::from(socket);
    // The address is never used: the connector goes to the socket.
    Endpoint::from_static("http://agent.invalid")
        .timeout(answer)
        .connect_with_connector(service_fn(move |_| {
            let path = Arc::clone(&path);
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .map_err(|error| unreachable(io::Error::other(error)))
}
