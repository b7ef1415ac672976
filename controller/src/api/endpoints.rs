//! Where workloads listen, on every host whose agent is connected.

use std::{pin::Pin, sync::Arc};

use ringfence_proto::{
    limits::MAX_REPORT_ENDPOINTS,
    v1::{Endpoint, ListAgentEndpointsRequest, ListAgentEndpointsResponse},
};
use tokio_stream::Stream;
use tonic::Status;

use crate::sync::{AgentInfo, HostEndpoints};

/// Messages of one host after the other, each made when it is asked for.
pub(super) type EndpointStream =
    Pin<Box<dyn Stream<Item = Result<ListAgentEndpointsResponse, Status>> + Send>>;

/// The answer to `ListAgentEndpoints`.
pub(super) fn list(
    agents: Vec<AgentInfo>,
    request: &ListAgentEndpointsRequest,
) -> Result<EndpointStream, Status> {
    let connected = |host: &String| agents.iter().any(|it| it.connected && it.host == *host);
    if let Some(absent) = request.host.iter().find(|host| !connected(host)) {
        return Err(Status::not_found(format!(
            "no agent of host {absent:?} is connected; see `ringfence-controller agents`"
        )));
    }
    let hosts = request.host.clone();
    let workloads: Arc<[String]> = request.workload.clone().into();
    let wanted = agents
        .into_iter()
        .filter(move |agent| hosts.is_empty() || hosts.contains(&agent.host));
    let messages = wanted.flat_map(move |agent| of_host(&agent.host, &agent.endpoints, &workloads));
    Ok(Box::pin(tokio_stream::iter(messages.map(Ok))))
}

fn of_host(
    host: &str,
    endpoints: &HostEndpoints,
    workloads: &[String],
) -> Vec<ListAgentEndpointsResponse> {
    let listening = endpoints.list.iter();
    let wanted: Vec<Endpoint> = listening
        .filter(|it| workloads.is_empty() || workloads.iter().any(|name| name == it.workload()))
        .map(Into::into)
        .collect();
    let mut messages: Vec<_> = wanted
        .chunks(MAX_REPORT_ENDPOINTS)
        .map(|part| ListAgentEndpointsResponse {
            host: host.to_owned(),
            endpoints: part.to_vec(),
            omitted: 0,
        })
        .collect();
    if endpoints.omitted > 0 && messages.is_empty() {
        messages.push(ListAgentEndpointsResponse {
            host: host.to_owned(),
            ..ListAgentEndpointsResponse::default()
        });
    }
    if let Some(last) = messages.last_mut() {
        last.omitted = endpoints.omitted;
    }
    messages
}
