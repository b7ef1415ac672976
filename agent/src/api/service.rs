//! `ringfence.v1.Agent`: each method hands to the file that answers it.

use std::sync::Arc;

use ringfence_proto::v1::{self, agent_server::Agent};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    Context, PolicyView, endpoints, explain,
    flows::{self, FlowStream, MAX_READERS},
    lists,
    processes::{self, Listed, MAX_WALKS},
    status, why,
};

/// Answers from what the tasks publish.
pub(super) struct AgentService {
    context: Context,
    readers: Arc<Semaphore>,
    walks: Arc<Semaphore>,
    cancel: CancellationToken,
}

impl AgentService {
    pub(super) fn new(context: Context, cancel: CancellationToken) -> Self {
        Self {
            context,
            readers: Arc::new(Semaphore::new(MAX_READERS)),
            walks: Arc::new(Semaphore::new(MAX_WALKS)),
            cancel,
        }
    }

    fn policy(&self) -> Arc<PolicyView> {
        self.context.policy.borrow().clone()
    }

    fn judge(&self) -> explain::Judge<'_> {
        explain::Judge {
            view: self.policy(),
            failsafe: &self.context.failsafe,
            mode: self.context.status.borrow().mode,
            now_boot_ns: (self.context.boot_now_ns)(),
        }
    }
}

#[tonic::async_trait]
impl Agent for AgentService {
    type GetFlowsStream = FlowStream;
    type ListProcessesStream = Listed<v1::ListProcessesResponse>;
    type ListIdentitiesStream = Listed<v1::ListIdentitiesResponse>;
    type ListEndpointsStream = Listed<v1::ListEndpointsResponse>;

    async fn get_status(
        &self,
        _request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(status::message(&self.context)))
    }

    async fn list_workloads(
        &self,
        _request: Request<v1::ListWorkloadsRequest>,
    ) -> Result<Response<v1::ListWorkloadsResponse>, Status> {
        Ok(Response::new(lists::workloads(&self.policy())))
    }

    async fn list_policies(
        &self,
        _request: Request<v1::ListPoliciesRequest>,
    ) -> Result<Response<v1::ListPoliciesResponse>, Status> {
        Ok(Response::new(lists::policies(&self.policy())))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        self.judge().explain(request.get_ref()).map(Response::new)
    }

    async fn get_flows(
        &self,
        request: Request<v1::GetFlowsRequest>,
    ) -> Result<Response<FlowStream>, Status> {
        let cancel = self.cancel.clone();
        flows::stream_flows(
            &self.context.flows,
            &self.readers,
            request.into_inner(),
            cancel,
        )
        .await
        .map(Response::new)
    }

    async fn list_processes(
        &self,
        request: Request<v1::ListProcessesRequest>,
    ) -> Result<Response<Self::ListProcessesStream>, Status> {
        processes::list(&self.context, &self.walks, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn explain_process(
        &self,
        request: Request<v1::ExplainProcessRequest>,
    ) -> Result<Response<v1::ExplainProcessResponse>, Status> {
        let request = request.into_inner();
        why::process(&self.context, &self.walks, self.judge(), request)
            .await
            .map(Response::new)
    }

    async fn list_identities(
        &self,
        _request: Request<v1::ListIdentitiesRequest>,
    ) -> Result<Response<Self::ListIdentitiesStream>, Status> {
        processes::identities(&self.context, &self.walks)
            .await
            .map(Response::new)
    }

    async fn list_endpoints(
        &self,
        request: Request<v1::ListEndpointsRequest>,
    ) -> Result<Response<Self::ListEndpointsStream>, Status> {
        endpoints::list(&self.context, request.into_inner())
            .await
            .map(Response::new)
    }
}
