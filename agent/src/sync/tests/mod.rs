//! A controller made for tests: the test drives each stream by hand.

mod endpoints;
mod hostile;
mod reconnect;
mod tls;
mod verify;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use ringfence_policy::model::Document;
use ringfence_proto::v1::{
    Delta, Hello, PolicyDocument, Snapshot, SyncRequest, SyncResponse, WorkloadIdentity,
    policy_sync_server::{PolicySync, PolicySyncServer},
    sync_request::Request as Sent,
    sync_response,
};
use tokio::{
    net::UnixListener,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::{Endpoint, Held, Phase, Settings, State, SyncError, Update, run};
use crate::endpoints::Endpoints;

const PATIENCE: Duration = Duration::from_secs(20);

/// One stream, as the controller sees it.
struct Stream {
    requests: Streaming<SyncRequest>,
    responses: mpsc::Sender<Result<SyncResponse, Status>>,
}

impl Stream {
    async fn send(&self, response: SyncResponse) -> Result<()> {
        self.responses
            .send(Ok(response))
            .await
            .context("the agent is gone")
    }

    async fn receive(&mut self) -> Result<Sent> {
        timeout(PATIENCE, self.requests.message())
            .await??
            .and_then(|request| request.request)
            .context("the agent ended the stream")
    }

    async fn hello(&mut self) -> Result<Hello> {
        match self.receive().await? {
            Sent::Hello(hello) => Ok(hello),
            other @ (Sent::Ack(_) | Sent::Nack(_) | Sent::Endpoints(_)) => {
                anyhow::bail!("before hello: {other:?}")
            }
        }
    }

    /// Sends the update and returns the refusal, if it is one.
    async fn ask(&mut self, response: SyncResponse) -> Result<Option<String>> {
        let (generation, nonce) = (response.generation, response.nonce);
        self.send(response).await?;
        match self.receive().await? {
            Sent::Ack(ack) => {
                anyhow::ensure!((ack.generation, ack.nonce) == (generation, nonce));
                Ok(None)
            }
            Sent::Nack(nack) => {
                anyhow::ensure!((nack.generation, nack.nonce) == (generation, nonce));
                Ok(Some(nack.error))
            }
            other @ (Sent::Hello(_) | Sent::Endpoints(_)) => {
                anyhow::bail!("no answer: {other:?}")
            }
        }
    }
}

struct Service(mpsc::Sender<Stream>);

#[tonic::async_trait]
impl PolicySync for Service {
    type SyncStream = ReceiverStream<Result<SyncResponse, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let (responses, stream) = mpsc::channel(4);
        let requests = request.into_inner();
        self.0
            .send(Stream {
                requests,
                responses,
            })
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// A controller on a unix socket; it goes away with `task`.
struct Controller {
    streams: mpsc::Receiver<Stream>,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Controller {
    fn listen(path: &Path) -> Result<Self> {
        let incoming = UnixListenerStream::new(UnixListener::bind(path)?);
        let (sender, streams) = mpsc::channel(4);
        let service = PolicySyncServer::new(Service(sender));
        let task = tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        Ok(Self { streams, task })
    }

    async fn accept(&mut self) -> Result<Stream> {
        timeout(PATIENCE, self.streams.recv())
            .await?
            .context("the controller is gone")
    }

    async fn stop(mut self) {
        self.streams.close();
        self.task.abort();
        // Aborted: that is the point.
        let _ = self.task.await;
    }
}

/// The side under test, with a policy task that takes what `refuse` does not name.
struct Agent {
    state: watch::Receiver<State>,
    applied: mpsc::Receiver<Held>,
    adopted: watch::Sender<Option<Held>>,
    endpoints: watch::Sender<Arc<Endpoints>>,
    cancel: CancellationToken,
    task: JoinHandle<Result<(), SyncError>>,
}

impl Agent {
    fn start(settings: Settings, held: Option<Held>, refuse: u64) -> Self {
        let (updates, mut received) = mpsc::channel::<Update>(1);
        let (report, applied) = mpsc::channel(64);
        let (sender, state) = watch::channel(State::default());
        let cancel = CancellationToken::new();
        let (adopted, adoptions) = watch::channel(None);
        let cancelled = cancel.clone();
        let (endpoints, listening) = watch::channel(Arc::default());
        let task = tokio::spawn(run(
            settings, held, updates, adoptions, listening, sender, cancelled,
        ));
        drop(tokio::spawn(async move {
            while let Some(update) = received.recv().await {
                if update.generation == refuse {
                    let _ = update.reply.send(Err("web.toml:1: refused".into()));
                    continue;
                }
                let held = Held {
                    generation: update.generation,
                    documents: update.documents,
                    identities: update.identities,
                };
                let _ = report.send(held).await;
                let _ = update.reply.send(Ok(()));
            }
        }));
        Self {
            state,
            applied,
            adopted,
            endpoints,
            cancel,
            task,
        }
    }

    fn on_socket(path: &Path, held: Option<Held>) -> Result<Self> {
        Ok(Self::start(
            settings(vec![Endpoint::Unix(path.into())])?,
            held,
            0,
        ))
    }

    async fn applied(&mut self) -> Result<Held> {
        timeout(PATIENCE, self.applied.recv())
            .await?
            .context("the agent is gone")
    }

    async fn state(&mut self, wanted: impl FnMut(&State) -> bool) -> Result<State> {
        Ok(timeout(PATIENCE, self.state.wait_for(wanted))
            .await??
            .clone())
    }

    /// Ends it and checks that it had not ended before.
    async fn stop(self) -> Result<()> {
        anyhow::ensure!(!self.task.is_finished());
        self.cancel.cancel();
        timeout(PATIENCE, self.task).await???;
        Ok(())
    }
}

fn settings(endpoints: Vec<Endpoint>) -> Result<Settings> {
    Ok(Settings::new(
        endpoints,
        None,
        "host-1".into(),
        "0.0.0".into(),
    )?)
}

fn held(generation: u64, documents: &[(&str, &str)], identities: &[(&str, u32)]) -> Held {
    Held {
        generation,
        documents: documents
            .iter()
            .map(|(name, text)| Document {
                name: (*name).into(),
                text: (*text).into(),
            })
            .collect(),
        identities: identities
            .iter()
            .map(|(workload, identity)| ((*workload).into(), *identity))
            .collect(),
    }
}

fn web(generation: u64) -> Held {
    let text = format!("# {generation}\n");
    held(generation, &[("web.toml", &text)], &[("web", 256)])
}

fn snapshot(policy: &Held) -> SyncResponse {
    SyncResponse {
        generation: policy.generation,
        nonce: policy.generation ^ 0x5a,
        checksum: policy.checksum().to_vec(),
        update: Some(sync_response::Update::Snapshot(Snapshot {
            documents: policy.documents.iter().map(wire).collect(),
            identities: policy
                .identities
                .iter()
                .map(|(workload, identity)| WorkloadIdentity {
                    workload: workload.clone(),
                    identity: *identity,
                })
                .collect(),
        })),
        max_endpoints: 0,
    }
}

fn delta(base: u64, policy: &Held, delta: Delta) -> SyncResponse {
    SyncResponse {
        update: Some(sync_response::Update::Delta(Delta { base, ..delta })),
        ..snapshot(policy)
    }
}

fn wire(document: &Document) -> PolicyDocument {
    PolicyDocument {
        name: document.name.clone(),
        text: document.text.to_string(),
    }
}
