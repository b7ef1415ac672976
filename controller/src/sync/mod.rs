//! Policy to agents: one stream each.
//!
//! A stream (`stream`) reads the store's watch channel and keeps what its agent acknowledged; what the
//! operator sees of it lives in the [`Registry`]. Rules of the wire: `docs/wire.md`.

mod endpoints;
mod hello;
mod registry;
mod stream;

pub use endpoints::{HostEndpoints, Listening};
pub use registry::{AgentInfo, Registry};

use std::sync::Arc;

use ringfence_proto::v1::{SyncRequest, SyncResponse, policy_sync_server::PolicySync};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::store::Published;

/// Snapshots under way to agents, in KiB: when ten thousand agents come back at once, they take turns.
const SNAPSHOT_BUDGET_KIB: u32 = 256 << 10;

/// The gRPC service.
#[derive(Clone, Debug)]
pub struct Service {
    policy: watch::Receiver<Published>,
    registry: Registry,
    budget: Arc<Semaphore>,
    verify_host: bool,
    shutdown: CancellationToken,
}

impl Service {
    /// Serves what `policy` says until `shutdown`.
    ///
    /// With `verify_host`, an agent that shows a certificate must have its host name in it.
    #[must_use]
    pub fn new(
        policy: watch::Receiver<Published>,
        registry: Registry,
        verify_host: bool,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            policy,
            registry,
            budget: Arc::new(Semaphore::new(SNAPSHOT_BUDGET_KIB as usize)),
            verify_host,
            shutdown,
        }
    }
}

#[tonic::async_trait]
impl PolicySync for Service {
    type SyncStream = ReceiverStream<Result<SyncResponse, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let certificates = request.peer_certs().filter(|_| self.verify_host);
        // One update in flight, and room for the status that ends the stream.
        let (outgoing, responses) = mpsc::channel(2);
        let service = self.clone();
        drop(tokio::spawn(async move {
            let status = service
                .serve(request.into_inner(), certificates, &outgoing)
                .await;
            // Fails if the agent is gone, which is then the reason why this ends.
            let _ = outgoing.try_send(Err(status));
        }));
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

impl Service {
    async fn serve(
        &self,
        mut incoming: Streaming<SyncRequest>,
        certificates: Option<hello::Certificates>,
        outgoing: &mpsc::Sender<Result<SyncResponse, Status>>,
    ) -> Status {
        let hello = match hello::receive(&mut incoming, certificates.as_deref()).await {
            Ok(hello) => hello,
            Err(status) => {
                tracing::warn!(%status, "agent is refused");
                return status;
            }
        };
        let Some(seat) = self
            .registry
            .join(hello.host.clone(), hello.version.clone())
            .await
        else {
            tracing::warn!(host = hello.host, "agent is refused: max-agents is reached");
            return Status::resource_exhausted(
                "as many agents as [server] max-agents allows are connected",
            );
        };
        tracing::info!(
            host = hello.host,
            version = hello.version,
            generation = hello.generation,
            "agent connected"
        );
        let stream = stream::Stream::new(seat, self.policy.clone(), Arc::clone(&self.budget));
        let status = stream.run(incoming, outgoing, &self.shutdown).await;
        tracing::info!(host = hello.host, %status, "agent disconnected");
        status
    }
}
