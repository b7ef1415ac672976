//! What the operator asks: agents, endpoints, health, reflection.

mod endpoints;

use prost_types::Timestamp;
use ringfence_proto::v1::{
    AgentState, ListAgentEndpointsRequest, ListAgentsRequest, ListAgentsResponse,
    controller_server::Controller,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::{
    store::Published,
    sync::{AgentInfo, Registry},
};

/// The gRPC service `ringfence.v1.Controller`.
#[derive(Clone, Debug)]
pub struct Service {
    policy: watch::Receiver<Published>,
    registry: Registry,
}

impl Service {
    /// Answers from the store and the list of agents.
    #[must_use]
    pub const fn new(policy: watch::Receiver<Published>, registry: Registry) -> Self {
        Self { policy, registry }
    }
}

#[tonic::async_trait]
impl Controller for Service {
    type ListAgentEndpointsStream = endpoints::EndpointStream;

    async fn list_agent_endpoints(
        &self,
        request: Request<ListAgentEndpointsRequest>,
    ) -> Result<Response<Self::ListAgentEndpointsStream>, Status> {
        let agents = self.registry.list().await;
        endpoints::list(agents, &request.into_inner()).map(Response::new)
    }

    async fn list_agents(
        &self,
        _request: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        let agents = self.registry.list().await;
        let published = self.policy.borrow().clone();
        Ok(Response::new(ListAgentsResponse {
            generation: published.version.map_or(0, |version| version.generation),
            agents: agents.into_iter().map(state).collect(),
            store_error: published.error,
        }))
    }
}

fn state(agent: AgentInfo) -> AgentState {
    AgentState {
        host: agent.host,
        version: agent.version,
        connected: agent.connected,
        sent: agent.sent,
        applied: agent.applied,
        error: agent.error,
        seen: Some(Timestamp::from(agent.seen)),
        endpoints: u32::try_from(agent.endpoints.list.len()).unwrap_or(u32::MAX),
    }
}
