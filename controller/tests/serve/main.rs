//! A whole controller against agents that the tests drive by hand.

mod endpoints;
mod limits;
mod stream;
mod tls;

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use hyper_util::rt::TokioIo;
use ringfence_controller::{
    config::{Config, Listen, Tls},
    serve::{Controller, ServeError},
};
use ringfence_proto::v1::{
    Ack, AgentState, Delta, Hello, ListAgentsRequest, ListAgentsResponse, Nack, Snapshot,
    SyncRequest, SyncResponse, controller_client::ControllerClient,
    policy_sync_client::PolicySyncClient, sync_request::Request, sync_response::Update,
};
use tempfile::TempDir;
use tokio::{
    net::UnixStream,
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn workload(name: &str) -> String {
    format!(
        "[[workload]]\nname = \"{name}\"\nlabels = {{ app = \"{name}\" }}\nmatch = {{ systemd-unit = \"{name}.service\" }}\n"
    )
}

/// A controller that runs, and its directories.
struct Running {
    dir: TempDir,
    port: Option<u16>,
    cancel: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

fn config(dir: &TempDir, max_agents: usize) -> Config {
    Config {
        listen: vec![Listen::Unix(dir.path().join("sock"))],
        max_agents,
        tls: None,
        policy_dir: dir.path().join("policy"),
        state_dir: dir.path().join("state"),
    }
}

fn directory() -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    fs::create_dir(dir.path().join("policy"))?;
    Ok(dir)
}

impl Running {
    async fn start(documents: &[(&str, &str)]) -> Result<Self> {
        let dir = directory()?;
        let config = config(&dir, 8);
        Self::start_with(dir, &config, documents).await
    }

    async fn start_with(dir: TempDir, config: &Config, documents: &[(&str, &str)]) -> Result<Self> {
        for (name, text) in documents {
            fs::write(config.policy_dir.join(name), text)?;
        }
        let controller = Controller::start(config).await?;
        let port = controller
            .tcp_addresses()
            .first()
            .map(std::net::SocketAddr::port);
        let cancel = CancellationToken::new();
        let task = tokio::spawn(controller.run(Arc::new(Notify::new()), cancel.clone()));
        Ok(Self {
            dir,
            port,
            cancel,
            task,
        })
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.dir.path().join("policy").join(name), text)?)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    async fn channel(&self) -> Result<Channel> {
        let path = self.socket();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        Ok(endpoint.connect_with_connector(connector).await?)
    }

    async fn agent(&self, host: &str) -> Result<Agent> {
        Agent::connect(self.channel().await?, host).await
    }

    async fn list(&self) -> Result<ListAgentsResponse> {
        let mut client = ControllerClient::new(self.channel().await?);
        Ok(client.list_agents(ListAgentsRequest {}).await?.into_inner())
    }

    /// Asks until the answer is as wanted; the last one is the error.
    async fn list_until(
        &self,
        wanted: impl Fn(&ListAgentsResponse) -> bool,
    ) -> Result<ListAgentsResponse> {
        for _ in 0..1000 {
            let list = self.list().await?;
            if wanted(&list) {
                return Ok(list);
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("{:?}", self.list().await?)
    }

    async fn stop(self) -> Result<()> {
        ensure!(!self.task.is_finished());
        self.cancel.cancel();
        timeout(PATIENCE, self.task).await???;
        ensure!(!self.dir.path().join("sock").exists());
        Ok(())
    }
}

/// One stream, as an agent sees it.
struct Agent {
    requests: mpsc::Sender<SyncRequest>,
    responses: Streaming<SyncResponse>,
}

impl Agent {
    async fn connect(channel: Channel, host: &str) -> Result<Self> {
        let (requests, outgoing) = mpsc::channel(4);
        let mut agent = Self {
            requests,
            responses: PolicySyncClient::new(channel)
                .sync(ReceiverStream::new(outgoing))
                .await?
                .into_inner(),
        };
        let hello = Hello {
            host: host.into(),
            version: "1".into(),
            generation: 0,
        };
        agent.send(Request::Hello(hello)).await?;
        Ok(agent)
    }

    async fn send(&mut self, request: Request) -> Result<()> {
        let request = SyncRequest {
            request: Some(request),
        };
        Ok(self.requests.send(request).await?)
    }

    async fn ack(&mut self, response: &SyncResponse) -> Result<()> {
        let SyncResponse {
            generation, nonce, ..
        } = *response;
        self.send(Request::Ack(Ack { generation, nonce })).await
    }

    async fn nack(&mut self, response: &SyncResponse, error: &str) -> Result<()> {
        let SyncResponse {
            generation, nonce, ..
        } = *response;
        let error = error.into();
        self.send(Request::Nack(Nack {
            generation,
            nonce,
            error,
        }))
        .await
    }

    async fn receive(&mut self) -> Result<SyncResponse> {
        let message = timeout(PATIENCE, self.responses.message()).await??;
        message.context("the controller ended the stream")
    }

    async fn snapshot(&mut self) -> Result<(SyncResponse, Snapshot)> {
        let response = self.receive().await?;
        match response.update.clone() {
            Some(Update::Snapshot(snapshot)) => Ok((response, snapshot)),
            other => bail!("not a snapshot: {other:?}"),
        }
    }

    async fn delta(&mut self) -> Result<(SyncResponse, Delta)> {
        let response = self.receive().await?;
        match response.update.clone() {
            Some(Update::Delta(delta)) => Ok((response, delta)),
            other => bail!("not a delta: {other:?}"),
        }
    }

    /// Nothing comes for a while.
    async fn quiet(&mut self) -> Result<()> {
        let silence = timeout(Duration::from_millis(300), self.responses.message()).await;
        ensure!(silence.is_err(), "{silence:?}");
        Ok(())
    }

    /// The status that ends the stream; updates before it are skipped.
    async fn end(&mut self) -> Result<Status> {
        loop {
            match timeout(PATIENCE, self.responses.message()).await? {
                Ok(Some(_)) => {}
                Ok(None) => bail!("ended without a status"),
                Err(status) => return Ok(status),
            }
        }
    }
}

fn agent<'a>(list: &'a ListAgentsResponse, host: &str) -> Result<&'a AgentState> {
    let found = list.agents.iter().find(|agent| agent.host == host);
    found.with_context(|| format!("{host} is not in {list:?}"))
}
