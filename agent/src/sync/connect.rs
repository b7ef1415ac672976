//! One connection to one endpoint.

use std::{path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{
    self, Certificate, Channel, ClientTlsConfig, Endpoint as Transport, Identity,
};

use super::{
    error::AttemptError,
    settings::{Endpoint, Tls},
};

const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Headers of a controller are few and short.
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// Connects; the caller sets the deadline.
pub(super) async fn connect(
    endpoint: &Endpoint,
    tls: Option<&Tls>,
) -> Result<Channel, AttemptError> {
    match (endpoint, tls) {
        (Endpoint::Unix(path), _) => unix(path).await,
        (Endpoint::Tcp { tls: false, .. }, _) => {
            tune(transport(endpoint)?).connect().await.map_err(failed)
        }
        (Endpoint::Tcp { host, .. }, Some(tls)) => {
            let config = tls_config(host, tls).await?;
            let transport = transport(endpoint)?.tls_config(config).map_err(failed)?;
            tune(transport).connect().await.map_err(failed)
        }
        // `Settings` has no such pair; refused rather than sent in the clear.
        (Endpoint::Tcp { .. }, None) => Err(AttemptError::Connect("no certificates".into())),
    }
}

async fn unix(path: &Path) -> Result<Channel, AttemptError> {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    tune(Transport::from_static("http://localhost"))
        .connect_with_connector(connector)
        .await
        .map_err(failed)
}

async fn tls_config(host: &str, tls: &Tls) -> Result<ClientTlsConfig, AttemptError> {
    let ca = read(&tls.ca).await?;
    let cert = read(&tls.cert).await?;
    let key = read(&tls.key).await?;
    Ok(ClientTlsConfig::new()
        .domain_name(host)
        .ca_certificate(Certificate::from_pem(ca))
        .identity(Identity::from_pem(cert, key)))
}

async fn read(path: &Path) -> Result<Vec<u8>, AttemptError> {
    tokio::fs::read(path)
        .await
        .map_err(|error| AttemptError::TlsFile {
            path: path.to_owned(),
            error,
        })
}

fn transport(endpoint: &Endpoint) -> Result<Transport, AttemptError> {
    Transport::from_shared(endpoint.to_string()).map_err(failed)
}

fn tune(transport: Transport) -> Transport {
    transport
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .http2_adaptive_window(true)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .tcp_nodelay(true)
}

/// The chain of causes in one line: the outermost one says only "transport error".
#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature that map_err wants"
)]
fn failed(error: transport::Error) -> AttemptError {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    AttemptError::Connect(text)
}
