//! From configuration to running tasks, and back.
//!
//! Order of the start: state (locked), policy, sockets, ready. Order of the end: streams are told, servers
//! drain, sockets are removed. A task that ends before it is told to ends the controller.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ringfence_proto::{
    DESCRIPTORS, limits,
    v1::{controller_server::ControllerServer, policy_sync_server::PolicySyncServer},
};
use thiserror::Error;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{Notify, watch},
    task::{self, JoinSet},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{self, Server, server::TcpIncoming},
};

use crate::{
    api,
    config::{Config, Listen},
    listen::{self, ListenError, UnixSocket},
    store::{Published, Store, StoreError},
    sync::{self, Registry},
};

const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that have not drained by then are cut.
const DRAIN: Duration = Duration::from_secs(5);
/// An agent needs one stream; an operator's tools a few.
const STREAMS_PER_CONNECTION: u32 = 16;
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// Why the controller does not run.
#[derive(Debug, Error)]
pub enum ServeError {
    /// State or policy directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Sockets or certificates.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A server failed.
    #[error("serving failed: {0}; see the log before this line")]
    Transport(#[from] transport::Error),
    /// A bug.
    #[error("a task ended unexpectedly: {0}; please report it with the log")]
    Task(String),
}

/// A controller that holds its state directory and its sockets.
pub struct Controller {
    store: Store,
    policy: watch::Receiver<Published>,
    registry: Registry,
    sockets: Vec<UnixSocket>,
    unix: Vec<UnixListener>,
    tcp: Vec<TcpListener>,
    tls: Option<TlsAcceptor>,
    verify_host: bool,
}

impl Controller {
    /// Locks the state, loads the policy and listens. Connections wait until [`run`](Self::run).
    ///
    /// # Errors
    /// State, sockets or certificates are not to be had. An invalid policy is no error.
    pub async fn start(config: &Config) -> Result<Self, ServeError> {
        let (policy_dir, state_dir) = (config.policy_dir.clone(), config.state_dir.clone());
        let (store, policy) = task::spawn_blocking(move || Store::open(&policy_dir, &state_dir))
            .await
            .map_err(StoreError::Panicked)??;
        let mut controller = Self {
            store,
            policy,
            registry: Registry::start(config.max_agents),
            sockets: Vec::new(),
            unix: Vec::new(),
            tcp: Vec::new(),
            tls: config.tls.as_ref().map(listen::tls::acceptor).transpose()?,
            verify_host: config.tls.as_ref().is_some_and(|tls| tls.verify_host),
        };
        for address in &config.listen {
            match address {
                Listen::Unix(path) => {
                    let (socket, listener) = UnixSocket::bind(path)?;
                    controller.sockets.push(socket);
                    controller.unix.push(listener);
                }
                Listen::Tcp(address) => controller.tcp.push(listen::tcp(*address).await?),
            }
            tracing::info!(%address, "listening");
        }
        Ok(controller)
    }

    /// What is served now.
    #[must_use]
    pub fn published(&self) -> watch::Receiver<Published> {
        self.policy.clone()
    }

    /// TCP addresses, with the ports that the kernel chose for port 0.
    #[must_use]
    pub fn tcp_addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.tcp.iter().map(TcpListener::local_addr);
        addresses.filter_map(Result::ok).collect()
    }

    /// Serves until cancelled; `reload` reads the policy directory again.
    ///
    /// # Errors
    /// A task failed.
    pub async fn run(
        self,
        reload: Arc<Notify>,
        cancel: CancellationToken,
    ) -> Result<(), ServeError> {
        let routes = self.routes(&cancel).await?;
        let mut tasks = JoinSet::new();
        for listener in self.unix {
            let serving = server()
                .add_routes(routes.clone())
                .serve_with_incoming_shutdown(
                    UnixListenerStream::new(listener),
                    cancel.clone().cancelled_owned(),
                );
            let _handle = tasks.spawn(async { Ok(serving.await?) });
        }
        for listener in self.tcp {
            let (serving, end) = (server().add_routes(routes.clone()), cancel.clone());
            if let Some(tls) = &self.tls {
                let incoming = listen::tls::incoming(listener, tls.clone());
                let serving = serving.serve_with_incoming_shutdown(incoming, end.cancelled_owned());
                let _handle = tasks.spawn(async { Ok(serving.await?) });
            } else {
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                let serving = serving.serve_with_incoming_shutdown(incoming, end.cancelled_owned());
                let _handle = tasks.spawn(async { Ok(serving.await?) });
            }
        }
        let store = self.store.run(reload, cancel.clone());
        let _handle = tasks.spawn(async { Ok(store.await?) });

        let first = tasks.join_next().await;
        let early = !cancel.is_cancelled();
        cancel.cancel();
        let first = finished(first);
        let mut result = match first {
            Ok(()) if early => Err(ServeError::Task("a server or the store stopped".into())),
            other => other,
        };
        let drained = timeout(DRAIN, async {
            while let Some(joined) = tasks.join_next().await {
                let ended = finished(Some(joined));
                if result.is_ok() {
                    result = ended;
                }
            }
        });
        if drained.await.is_err() {
            tracing::warn!("connections did not drain in time and are cut");
        }
        drop(self.sockets);
        result
    }

    async fn routes(&self, cancel: &CancellationToken) -> Result<Routes, ServeError> {
        let sync = sync::Service::new(
            self.policy.clone(),
            self.registry.clone(),
            self.verify_host,
            cancel.clone(),
        );
        let sync = PolicySyncServer::new(sync)
            .max_decoding_message_size(limits::MAX_REQUEST_BYTES)
            .max_encoding_message_size(limits::MAX_UPDATE_BYTES);
        let api = api::Service::new(self.policy.clone(), self.registry.clone());
        let api = ControllerServer::new(api).max_decoding_message_size(limits::MAX_REQUEST_BYTES);

        let (reporter, health) = tonic_health::server::health_reporter();
        reporter
            .set_serving::<PolicySyncServer<sync::Service>>()
            .await;
        reporter
            .set_serving::<ControllerServer<api::Service>>()
            .await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|error| ServeError::Task(error.to_string()))?;

        let mut routes = Routes::builder();
        let _routes = routes
            .add_service(sync)
            .add_service(api)
            .add_service(health)
            .add_service(reflection);
        Ok(routes.routes())
    }
}

fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
}

fn finished(
    joined: Option<Result<Result<(), ServeError>, task::JoinError>>,
) -> Result<(), ServeError> {
    match joined {
        None => Err(ServeError::Task("nothing to serve".into())),
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(ServeError::Task(error.to_string())),
    }
}
