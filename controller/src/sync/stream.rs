//! One agent's stream: at most one update in flight, deltas against what was acknowledged.

use std::{sync::Arc, time::Duration};

use ringfence_proto::{
    limits,
    v1::{EndpointReport, SyncRequest, SyncResponse, sync_request::Request},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{
    SNAPSHOT_BUDGET_KIB,
    registry::{Report, Seat},
};
use crate::store::{Published, Version};

/// An agent that takes longer to answer is stuck.
const ANSWER: Duration = Duration::from_secs(60);

type Outgoing = mpsc::Sender<Result<SyncResponse, Status>>;

pub(super) struct Stream {
    seat: Seat,
    policy: watch::Receiver<Published>,
    budget: Arc<Semaphore>,
    nonce: u64,
    /// What the agent acknowledged on this stream: the base of the next delta. `None`: send a snapshot.
    base: Option<Arc<Version>>,
    /// A snapshot that the agent refused is not sent again.
    refused: Option<u64>,
    in_flight: Option<InFlight>,
}

struct InFlight {
    version: Arc<Version>,
    nonce: u64,
    /// Present for a snapshot: its share of the budget.
    permit: Option<OwnedSemaphorePermit>,
    deadline: Instant,
}

impl Stream {
    pub(super) const fn new(
        seat: Seat,
        policy: watch::Receiver<Published>,
        budget: Arc<Semaphore>,
    ) -> Self {
        Self {
            seat,
            policy,
            budget,
            nonce: 0,
            base: None,
            refused: None,
            in_flight: None,
        }
    }

    /// Serves until the status that it returns.
    pub(super) async fn run(
        mut self,
        mut incoming: Streaming<SyncRequest>,
        outgoing: &Outgoing,
        shutdown: &CancellationToken,
    ) -> Status {
        let superseded = self.seat.superseded.clone();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Status::unavailable("the controller is shutting down"),
            () = superseded.cancelled() => {
                Status::aborted(format!("another agent connected as {:?}", self.seat.host))
            }
            () = outgoing.closed() => Status::cancelled("the agent went away"),
            status = self.serve(&mut incoming, outgoing) => status,
        }
    }

    async fn serve(
        &mut self,
        incoming: &mut Streaming<SyncRequest>,
        outgoing: &Outgoing,
    ) -> Status {
        loop {
            if self.in_flight.is_none()
                && let Err(status) = self.send(outgoing).await
            {
                return status;
            }
            let deadline = self.in_flight.as_ref().map(|update| update.deadline);
            let result = tokio::select! {
                message = incoming.message() => match message {
                    Ok(Some(request)) => self.answer(request),
                    Ok(None) => Err(Status::cancelled("the agent ended the stream")),
                    Err(status) => Err(status),
                },
                changed = self.policy.changed(), if deadline.is_none() => {
                    changed.map_err(|_| Status::unavailable("the controller is shutting down"))
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    Err(Status::deadline_exceeded("no answer to the update"))
                }
            };
            if let Err(status) = result {
                return status;
            }
        }
    }

    /// Sends what the agent does not have yet, if anything.
    async fn send(&mut self, outgoing: &Outgoing) -> Result<(), Status> {
        let Some(mut version) = self.wanted() else {
            return Ok(());
        };
        let mut permit = None;
        if self.base.is_none() {
            permit = Some(self.permit(&version).await?);
            // Waiting may have taken long: the newest one counts.
            let Some(newest) = self.wanted() else {
                return Ok(());
            };
            version = newest;
        }
        self.nonce += 1;
        let response = match &self.base {
            Some(base) => version.delta(self.nonce, base),
            None => version.snapshot(self.nonce),
        };
        outgoing
            .send(Ok(response))
            .await
            .map_err(|_| Status::cancelled("the agent went away"))?;
        self.seat.report(Report::Sent(version.generation));
        self.in_flight = Some(InFlight {
            version,
            nonce: self.nonce,
            permit,
            deadline: Instant::now() + ANSWER,
        });
        Ok(())
    }

    fn wanted(&mut self) -> Option<Arc<Version>> {
        let version = self.policy.borrow_and_update().version.clone()?;
        let has = self.base.as_ref().map(|base| base.generation);
        let generation = Some(version.generation);
        (has != generation && self.refused != generation).then_some(version)
    }

    async fn permit(&self, version: &Version) -> Result<OwnedSemaphorePermit, Status> {
        let kib = u32::try_from(version.snapshot_bytes() / 1024 + 1).unwrap_or(u32::MAX);
        Arc::clone(&self.budget)
            .acquire_many_owned(kib.min(SNAPSHOT_BUDGET_KIB))
            .await
            .map_err(|_| Status::unavailable("the controller is shutting down"))
    }

    fn take_report(&mut self, report: EndpointReport) -> Result<(), Status> {
        let mut result = Ok(());
        self.seat.endpoints.send_modify(|endpoints| {
            result = Arc::make_mut(endpoints).apply(report);
        });
        result
    }

    fn answer(&mut self, request: SyncRequest) -> Result<(), Status> {
        let (generation, nonce, error) = match request.request {
            Some(Request::Ack(ack)) => (ack.generation, ack.nonce, None),
            Some(Request::Nack(nack)) => (nack.generation, nack.nonce, Some(nack.error)),
            Some(Request::Endpoints(report)) => return self.take_report(report),
            Some(Request::Hello(_)) => return Err(Status::invalid_argument("a second Hello")),
            None => return Err(Status::invalid_argument("an empty message")),
        };
        let Some(update) = self
            .in_flight
            .take_if(|update| update.nonce == nonce && update.version.generation == generation)
        else {
            return Err(Status::invalid_argument(format!(
                "generation {generation}, nonce {nonce} is not in flight"
            )));
        };
        let snapshot = update.permit.is_some();
        let Some(error) = error else {
            tracing::debug!(
                host = self.seat.host,
                generation,
                snapshot,
                "policy applied"
            );
            self.seat.report(Report::Applied(generation));
            self.base = Some(update.version);
            self.refused = None;
            return Ok(());
        };
        let error = limits::clip_error(&error).to_owned();
        tracing::error!(
            host = self.seat.host,
            generation,
            snapshot,
            error,
            "policy refused by agent"
        );
        self.seat.report(Report::Refused(error));
        self.base = None;
        self.refused = snapshot.then_some(generation);
        Ok(())
    }
}
