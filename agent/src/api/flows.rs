//! The stream of flow records: the past, then what comes, without a gap or a record twice.

use std::{pin::Pin, sync::Arc};

use async_stream::stream;
use ringfence_proto::v1::{self, get_flows_response::Response};
use tokio::sync::{Semaphore, broadcast::error::RecvError};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::flow::{Filter, Handle, Numbered};

/// Readers of the log at a time: each may hold the log of its moment.
pub(super) const MAX_READERS: usize = 16;

pub(super) type FlowStream =
    Pin<Box<dyn Stream<Item = Result<v1::GetFlowsResponse, Status>> + Send>>;

/// The answer to `GetFlows`; it ends by itself without `follow`, else at `cancel`.
pub(super) async fn stream_flows(
    flows: &Handle,
    readers: &Arc<Semaphore>,
    request: v1::GetFlowsRequest,
    cancel: CancellationToken,
) -> Result<FlowStream, Status> {
    let filters = request
        .filters
        .into_iter()
        .map(Filter::try_from)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let place = Arc::clone(readers).try_acquire_owned().map_err(|_| {
        Status::resource_exhausted(format!(
            "{MAX_READERS} readers follow the flow log already; end one of them"
        ))
    })?;
    let reading = flows
        .read()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let past = select(reading.past, &filters, request.last, request.follow);
    let mut next = reading.next;
    Ok(Box::pin(stream! {
        let _place = place;
        for numbered in past {
            yield Ok(message(&numbered));
        }
        if !request.follow {
            return;
        }
        loop {
            let received = tokio::select! {
                () = cancel.cancelled() => break,
                received = next.recv() => received,
            };
            match received {
                Ok(numbered) if wanted(&filters, &numbered) => yield Ok(message(&numbered)),
                Ok(_) => {}
                Err(RecvError::Lagged(lost)) => yield Ok(v1::GetFlowsResponse {
                    response: Some(Response::Lost(lost)),
                }),
                Err(RecvError::Closed) => break,
            }
        }
        yield Err(Status::unavailable("the agent is stopping"));
    }))
}

/// The last `last` records that are wanted; 0 means none with `follow`, else all.
fn select(past: Vec<Numbered>, filters: &[Filter], last: u64, follow: bool) -> Vec<Numbered> {
    let keep = match (last, follow) {
        (0, true) => 0,
        (0, false) => usize::MAX,
        (last, _) => usize::try_from(last).unwrap_or(usize::MAX),
    };
    let newest_first = past.into_iter().rev();
    let mut selected: Vec<Numbered> = newest_first
        .filter(|numbered| wanted(filters, numbered))
        .take(keep)
        .collect();
    selected.reverse();
    selected
}

fn wanted(filters: &[Filter], numbered: &Numbered) -> bool {
    filters.is_empty()
        || filters
            .iter()
            .any(|filter| filter.matches(&numbered.record))
}

fn message(numbered: &Numbered) -> v1::GetFlowsResponse {
    v1::GetFlowsResponse {
        response: Some(Response::Flow(numbered.record.to_proto(numbered.sequence))),
    }
}
