//! Where workloads listen.

use ringfence_proto::v1;
use tokio_stream::StreamExt as _;
use tonic::Status;

use super::{
    Context,
    processes::{Listed, chunks},
};

/// Endpoints in one message.
const MESSAGE: usize = 500;

/// The answer to `ListEndpoints`.
pub(super) async fn list(
    context: &Context,
    request: v1::ListEndpointsRequest,
) -> Result<Listed<v1::ListEndpointsResponse>, Status> {
    let names = request.workload;
    let view = context.policy.borrow().clone();
    if let Some(unknown) = names
        .iter()
        .find(|name| !view.identities.contains_key(*name))
    {
        return Err(super::explain::unknown(&view, "workload", unknown));
    }
    let look = context.endpoints.look().await.ok_or_else(|| {
        Status::resource_exhausted("too many ask for the endpoints already; try again")
    })?;
    if let Some(error) = &look.endpoints.error {
        return Err(Status::failed_precondition(error.clone()));
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let found = look
        .endpoints
        .list
        .iter()
        .filter(|endpoint| wanted(&endpoint.workload));
    let messages: Vec<v1::Endpoint> = found.map(Into::into).collect();
    let omitted = u64::try_from(look.endpoints.omitted).unwrap_or(u64::MAX);
    let listed = chunks(messages, MESSAGE, |endpoints| v1::ListEndpointsResponse {
        endpoints,
        omitted: 0,
    });
    let last = (omitted > 0).then(|| v1::ListEndpointsResponse {
        endpoints: Vec::new(),
        omitted,
    });
    Ok(Box::pin(listed.chain(tokio_stream::iter(last.map(Ok)))))
}
