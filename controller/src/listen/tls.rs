//! Mutual TLS on accepted connections. Done here because the gRPC library drops a connection whose
//! handshake fails without a word.

use std::{
    collections::VecDeque,
    fs, io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use ringfence_proto::text::causes;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
    server::TlsStream,
};
use tokio_stream::wrappers::ReceiverStream;

use super::ListenError;
use crate::config::Tls;

/// A handshake that takes longer is not one.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes under way at a time. Anybody can begin one: who comes beyond that takes the place of the oldest.
pub const MAX_HANDSHAKES: usize = 512;
/// Between two warnings: anybody can cause them.
const QUIET: Duration = Duration::from_secs(10);
/// Pause after a failed accept (out of file descriptors).
const PAUSE: Duration = Duration::from_millis(100);
/// Connections that wait for the server to take them.
const WAITING: usize = 64;

/// A connection that is secured.
type Secured = io::Result<TlsStream<TcpStream>>;

/// Reads the files of mutual TLS.
///
/// # Errors
/// One of them cannot be read, or they do not belong together.
pub fn acceptor(tls: &Tls) -> Result<TlsAcceptor, ListenError> {
    let unusable = |error: &(dyn std::error::Error + 'static)| ListenError::Tls(causes(error));
    let provider = Arc::new(default_provider());
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(&tls.client_ca)? {
        authorities
            .add(certificate)
            .map_err(|error| unusable(&error))?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(authorities.into(), Arc::clone(&provider))
            .build()
            .map_err(|error| unusable(&error))?;
    let key = PrivateKeyDer::from_pem_slice(&read(&tls.key)?)
        .map_err(|error| ListenError::Tls(format!("{}: {}", tls.key.display(), causes(&error))))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&tls.cert)?, key)
        .map_err(|error| unusable(&error))?;
    config.alpn_protocols.push(b"h2".to_vec());
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts and secures connections for as long as somebody takes them.
pub fn incoming(listener: TcpListener, acceptor: TlsAcceptor) -> ReceiverStream<Secured> {
    let (ready, secured) = mpsc::channel(WAITING);
    let _detached = tokio::spawn(accept(listener, acceptor, ready));
    ReceiverStream::new(secured)
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, ready: mpsc::Sender<Secured>) {
    let mut handshakes = JoinSet::new();
    let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
    let mut refusals = Refusals::default();
    loop {
        tokio::select! {
            () = ready.closed() => return,
            Some(ended) = handshakes.join_next() => {
                if let Ok(Some((peer, error))) = ended {
                    refusals.tell(peer, &error);
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if oldest_first.len() >= MAX_HANDSHAKES {
                        oldest_first.retain(|handshake| !handshake.is_finished());
                    }
                    if oldest_first.len() >= MAX_HANDSHAKES
                        && let Some(oldest) = oldest_first.pop_front()
                    {
                        oldest.abort();
                    }
                    let (acceptor, ready) = (acceptor.clone(), ready.clone());
                    oldest_first.push_back(handshakes.spawn(async move {
                        let error = secure(stream, &acceptor, &ready).await.err()?;
                        Some((peer, error))
                    }));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn secure(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    ready: &mpsc::Sender<Secured>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = timeout(HANDSHAKE, acceptor.accept(stream))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    // Nobody takes it any more when the controller stops.
    let _stopping = ready.send(Ok(stream)).await;
    Ok(())
}

/// What was said about failed handshakes lately.
#[derive(Debug, Default)]
struct Refusals {
    last: Option<Instant>,
    untold: u64,
}

impl Refusals {
    fn tell(&mut self, peer: SocketAddr, error: &io::Error) {
        tracing::debug!(%peer, %error, "TLS handshake failed");
        // Others broke off or said nothing: whoever only looks whether the port is open.
        if error.kind() != io::ErrorKind::InvalidData {
            return;
        }
        if self.last.is_some_and(|last| last.elapsed() < QUIET) {
            self.untold += 1;
            return;
        }
        tracing::warn!(
            %error,
            untold = self.untold,
            "TLS handshake failed: is the agent's certificate of an authority in client-ca and still valid, and does \
             the agent use https? Level debug tells the peer"
        );
        *self = Self {
            last: Some(Instant::now()),
            untold: 0,
        };
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ListenError> {
    let unusable = |problem: &str| ListenError::Tls(format!("{}: {problem}", path.display()));
    let found = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(&error.to_string()))?;
    if found.is_empty() {
        return Err(unusable("no certificate in PEM form"));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, ListenError> {
    fs::read(path).map_err(|error| ListenError::TlsFile {
        path: path.to_owned(),
        error,
    })
}
