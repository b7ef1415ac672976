//! One connection to one endpoint.

use std::{path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use ringfence_proto::limits;
use tokio::net::UnixStream;
use tonic::transport::{
    self, Certificate, Channel, ClientTlsConfig, Endpoint as Transport, Identity,
};

use super::{
    error::AttemptError,
    settings::{Endpoint, Settings, Tls},
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
        (Endpoint::Tcp { host, .. }, Some(tls)) => tune(secured(endpoint, host, tls).await?)
            .connect()
            .await
            .map_err(failed),
        // `Settings` has no such pair; refused rather than sent in the clear.
        (Endpoint::Tcp { .. }, None) => Err(AttemptError::Connect("no certificates".into())),
    }
}

/// Reads the files of mutual TLS as every connection does, and connects to nobody.
///
/// # Errors
/// One sentence naming the file that can't be read, or what is wrong with the certificates.
pub async fn check(settings: &Settings) -> Result<(), String> {
    for endpoint in settings.endpoints() {
        if let (
            Endpoint::Tcp {
                host, tls: true, ..
            },
            Some(tls),
        ) = (endpoint, settings.tls())
        {
            let _transport = secured(endpoint, host, tls)
                .await
                .map_err(|error| error.to_string())?;
        }
    }
    Ok(())
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

async fn secured(endpoint: &Endpoint, host: &str, tls: &Tls) -> Result<Transport, AttemptError> {
    let ca = certificates(&tls.ca).await?;
    let cert = certificates(&tls.cert).await?;
    let key = read(&tls.key).await?;
    let config = ClientTlsConfig::new()
        .domain_name(host)
        .ca_certificate(Certificate::from_pem(ca))
        .identity(Identity::from_pem(cert, key));
    transport(endpoint)?
        .tls_config(config)
        .map_err(|error| AttemptError::Certificates(causes(&error)))
}

/// The TLS library takes a file without any certificate for an authority that nobody belongs to.
async fn certificates(path: &Path) -> Result<Vec<u8>, AttemptError> {
    let pem = read(path).await?;
    if String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
        return Ok(pem);
    }
    Err(AttemptError::Certificates(format!(
        "{} holds no certificate in PEM form",
        path.display()
    )))
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

#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature that map_err wants"
)]
fn failed(error: transport::Error) -> AttemptError {
    AttemptError::Connect(causes(&error))
}

/// Why there was no answer on a connection that seemed to be open: with TLS 1.3 an agent learns only then
/// that its certificate was refused, and without TLS that the controller expects it.
pub(super) fn unanswered(endpoint: &Endpoint, status: &tonic::Status) -> AttemptError {
    // What the controller itself answers has no cause on this side.
    if std::error::Error::source(status).is_none() {
        return ended(status);
    }
    let hint = match endpoint {
        Endpoint::Unix(_) => return ended(status),
        Endpoint::Tcp { tls: true, .. } => {
            "does `client-ca` of the controller know the authority of `cert`, and is `cert` still valid? \
             The controller's log tells"
        }
        Endpoint::Tcp { tls: false, .. } => {
            "does the controller serve TLS there? Then write https:// with `ca`, `cert` and `key`"
        }
    };
    let cause = causes(status);
    AttemptError::Unanswered { cause, hint }
}

/// Why a stream ended. The text is the controller's: it is clipped, and `Debug` keeps control characters
/// out of the log.
pub(super) fn ended(status: &tonic::Status) -> AttemptError {
    let message = limits::clip_error(status.message());
    AttemptError::Ended(format!("{:?} {message:?}", status.code()))
}

/// The chain of causes in one line: the outermost one says only "transport error". A cause that the one
/// before it has told already is left out.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.ends_with(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = error.source();
    }
    text
}
