//! gRPC over a unix socket, for code that doesn't wait asynchronously.

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use ringfence_proto::v1::{
    Endpoint as Listening, ExplainProcessRequest, ExplainProcessResponse, ExplainRequest,
    ExplainResponse, Flow, FlowFilter, GetFlowsRequest, GetStatusRequest, GetStatusResponse,
    IdentityInfo, ListEndpointsRequest, ListIdentitiesRequest, ListProcessesRequest,
    ListWorkloadsRequest, LiveProcess, Workload, agent_client::AgentClient,
    get_flows_response::Response,
};
use tokio::{net::UnixStream, runtime::Runtime};
use tonic::transport::{Channel, Endpoint};

use crate::poll::PATIENCE;

/// A way to the agent's interface: connects anew for each question.
pub struct Client {
    runtime: Runtime,
    socket: PathBuf,
}

impl Client {
    /// For the agent that serves on `socket`.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Self {
            runtime: runtime.unwrap(),
            socket: socket.to_owned(),
        }
    }

    /// State of the agent.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn status(&self) -> Result<GetStatusResponse, String> {
        self.runtime.block_on(async {
            let mut client = AgentClient::new(channel(&self.socket).await?);
            let answer = client.get_status(GetStatusRequest {}).await;
            Ok(answer.map_err(|status| status.to_string())?.into_inner())
        })
    }

    /// Workloads in force.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn workloads(&self) -> Result<Vec<Workload>, String> {
        self.runtime.block_on(async {
            let mut client = AgentClient::new(channel(&self.socket).await?);
            let answer = client.list_workloads(ListWorkloadsRequest {}).await;
            let answer = answer.map_err(|status| status.to_string())?;
            Ok(answer.into_inner().workloads)
        })
    }

    /// What would be decided about a flow over TCP.
    ///
    /// # Errors
    /// Nobody answers, or the question is refused.
    pub fn explain(&self, from: &str, to: &str, port: u16) -> Result<ExplainResponse, String> {
        self.runtime.block_on(async {
            let mut client = AgentClient::new(channel(&self.socket).await?);
            let question = ExplainRequest {
                from: from.to_owned(),
                to: to.to_owned(),
                protocol: "tcp".to_owned(),
                port: port.into(),
            };
            let answer = client.explain(question).await;
            Ok(answer.map_err(|status| status.to_string())?.into_inner())
        })
    }

    /// Live processes of these workloads, of all if none is named.
    ///
    /// # Errors
    /// Nobody answers, or the question is refused.
    pub fn processes(&self, workloads: &[&str]) -> Result<Vec<LiveProcess>, String> {
        self.runtime.block_on(async {
            let mut client = AgentClient::new(channel(&self.socket).await?);
            let request = ListProcessesRequest {
                workload: workloads.iter().map(ToString::to_string).collect(),
            };
            let answer = client.list_processes(request).await;
            let mut stream = answer.map_err(|status| status.to_string())?.into_inner();
            let mut found = Vec::new();
            while let Some(message) = stream.message().await.map_err(|it| it.to_string())? {
                found.extend(message.processes);
            }
            Ok(found)
        })
    }

    /// Where workloads listen.
    ///
    /// # Errors
    /// Nobody answers, or the question is refused.
    pub fn endpoints(&self) -> Result<Vec<Listening>, String> {
        self.runtime.block_on(async {
            let mut client = AgentClient::new(channel(&self.socket).await?);
            let answer = client.list_endpoints(ListEndpointsRequest::default()).await;
            let mut stream = answer.map_err(|status| status.to_string())?.into_inner();
            let mut found = Vec::new();
            while let Some(message) = stream.message().await.map_err(|it| it.to_string())? {
                found.extend(message.endpoints);
            }
            Ok(found)
        })
    }

    /// Every identity.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn identities(&self) -> Result<Vec<IdentityInfo>, String> {
        self.runtime.block_on(async {
            let mut client = AgentClient::new(channel(&self.socket).await?);
            let answer = client.list_identities(ListIdentitiesRequest {}).await;
            let mut stream = answer.map_err(|status| status.to_string())?.into_inner();
            let mut found = Vec::new();
            while let Some(message) = stream.message().await.map_err(|it| it.to_string())? {
                found.extend(message.identities);
            }
            Ok(found)
        })
    }

    /// Which identity a process has and why; with a destination and a port, what becomes of its flow over TCP.
    ///
    /// # Errors
    /// Nobody answers, or the question is refused.
    pub fn explain_process(
        &self,
        pid: u32,
        to: &str,
        port: u16,
    ) -> Result<ExplainProcessResponse, String> {
        self.runtime.block_on(async {
            let mut client = AgentClient::new(channel(&self.socket).await?);
            let question = ExplainProcessRequest {
                pid,
                to: to.to_owned(),
                protocol: "tcp".to_owned(),
                port: port.into(),
            };
            let answer = client.explain_process(question).await;
            Ok(answer.map_err(|status| status.to_string())?.into_inner())
        })
    }

    /// Flow records that are kept and match one of `filters`.
    ///
    /// # Errors
    /// Nobody answers, or records were lost.
    pub fn flows(&self, filters: Vec<FlowFilter>) -> Result<Vec<Flow>, String> {
        self.runtime.block_on(async {
            let mut client = AgentClient::new(channel(&self.socket).await?);
            let request = GetFlowsRequest {
                filters,
                ..GetFlowsRequest::default()
            };
            let mut stream = client
                .get_flows(request)
                .await
                .map_err(|status| status.to_string())?
                .into_inner();
            let mut flows = Vec::new();
            while let Some(message) = stream
                .message()
                .await
                .map_err(|status| status.to_string())?
            {
                match message.response {
                    Some(Response::Flow(flow)) => flows.push(flow),
                    Some(Response::Lost(lost)) => return Err(format!("{lost} records lost")),
                    None => return Err("an empty answer".to_owned()),
                }
            }
            Ok(flows)
        })
    }
}

async fn channel(socket: &Path) -> Result<Channel, String> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://agent.invalid")
        .timeout(*PATIENCE)
        .connect_with_connector(connector)
        .await
        .map_err(|error| format!("{error:?}"))
}
