//! The task that keeps a stream to the controller.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ringfence_proto::{
    limits,
    v1::{
        Ack, Hello, Nack, SyncRequest, SyncResponse, policy_sync_client::PolicySyncClient,
        sync_request::Request,
    },
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::{
    Phase, State, Update,
    backoff::Backoff,
    connect::{connect, ended, unanswered},
    error::{AttemptError, SyncError},
    held::Held,
    report::Reporter,
    settings::{Endpoint, Settings},
    verify::{Verified, verify},
};
use crate::endpoints::Endpoints;

/// From the first packet to the open stream.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A stream that lived this long was a good one: the next wait is a short one.
const STABLE: Duration = Duration::from_secs(30);
/// Refusals in a row after which the stream is given up, so that a mad controller costs no CPU.
const MAX_REFUSALS: u32 = 16;

/// Synchronises until cancelled, over every failure of the controller.
///
/// `held` is what is in force at the start, from [`cache::load`](super::cache::load). `adopted` brings what
/// came into force after it was refused; the controller learns that by a new stream. `endpoints` are reported
/// to a controller that takes them.
///
/// # Errors
/// The policy task is gone.
pub async fn run(
    settings: Settings,
    held: Option<Held>,
    updates: mpsc::Sender<Update>,
    adopted: watch::Receiver<Option<Held>>,
    endpoints: watch::Receiver<Arc<Endpoints>>,
    state: watch::Sender<State>,
    cancel: CancellationToken,
) -> Result<(), SyncError> {
    let task = Client {
        held,
        updates,
        adopted,
        endpoints,
        state,
    };
    cancel
        .run_until_cancelled(task.run(&settings))
        .await
        .unwrap_or(Ok(()))
}

struct Client {
    held: Option<Held>,
    updates: mpsc::Sender<Update>,
    adopted: watch::Receiver<Option<Held>>,
    endpoints: watch::Receiver<Arc<Endpoints>>,
    state: watch::Sender<State>,
}

impl Client {
    async fn run(mut self, settings: &Settings) -> Result<(), SyncError> {
        let mut backoff = Backoff::new();
        for endpoint in settings.endpoints().iter().cycle() {
            self.report(|state| {
                state.phase = Phase::Connecting;
                state.endpoint = endpoint.to_string();
            });
            let started = Instant::now();
            let error = loop {
                match self.attempt(settings, endpoint).await {
                    Err(AttemptError::Sync(error)) => return Err(error),
                    // Each one is newer than the one before, so this ends.
                    Err(AttemptError::Adopted(generation)) => {
                        tracing::info!(generation, "accepted after all; telling the controller");
                    }
                    Err(error) => break error.to_string(),
                    Ok(never) => match never {},
                }
            };
            if started.elapsed() > STABLE {
                backoff.reset();
            }
            let wait = backoff.next();
            tracing::warn!(%endpoint, error, wait_ms = wait.as_millis(), "controller is out of reach");
            self.report(|state| {
                state.phase = Phase::Connecting;
                state.last_error = Some(error);
            });
            time::sleep(wait).await;
        }
        Ok(())
    }

    /// One connection, from Hello until it breaks.
    async fn attempt(
        &mut self,
        settings: &Settings,
        endpoint: &Endpoint,
    ) -> Result<std::convert::Infallible, AttemptError> {
        let (requests, mut stream) = time::timeout(CONNECT_TIMEOUT, self.open(settings, endpoint))
            .await
            .map_err(|_| AttemptError::TimedOut {
                seconds: CONNECT_TIMEOUT.as_secs(),
            })??;
        tracing::info!(%endpoint, "controller connected");
        self.report(|state| {
            state.phase = Phase::Connected;
            state.last_error = None;
        });
        let mut refusals = 0;
        let mut reporter = Reporter::new(self.endpoints.clone());
        loop {
            let response = tokio::select! {
                biased;
                generation = self.adopt() => return Err(AttemptError::Adopted(generation)),
                response = stream.message() => response.map_err(|status| ended(&status))?,
                report = reporter.next() => {
                    send(&requests, Request::Endpoints(report)).await?;
                    continue;
                }
            };
            let response = response.ok_or_else(|| AttemptError::Ended("no reason given".into()))?;
            reporter.take_up_to(response.max_endpoints);
            let (generation, nonce) = (response.generation, response.nonce);
            let request = match self.update(response).await? {
                Ok(()) => {
                    refusals = 0;
                    Request::Ack(Ack { generation, nonce })
                }
                Err(error) => {
                    refusals += 1;
                    let error = limits::clip_error(&error).to_owned();
                    Request::Nack(Nack {
                        generation,
                        nonce,
                        error,
                    })
                }
            };
            send(&requests, request).await?;
            if refusals >= MAX_REFUSALS {
                return Err(AttemptError::TooManyRefusals(refusals));
            }
        }
    }

    /// Waits for a policy that came into force without being asked for, newer than the one held.
    async fn adopt(&mut self) -> u64 {
        loop {
            let held = self.held.as_ref().map_or(0, |held| held.generation);
            let newest = self.adopted.borrow_and_update().clone();
            if let Some(newest) = newest.filter(|newest| newest.generation > held) {
                let generation = newest.generation;
                self.held = Some(newest);
                return generation;
            }
            if self.adopted.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn open(
        &self,
        settings: &Settings,
        endpoint: &Endpoint,
    ) -> Result<(mpsc::Sender<SyncRequest>, Streaming<SyncResponse>), AttemptError> {
        let channel = connect(endpoint, settings.tls()).await?;
        let mut client =
            PolicySyncClient::new(channel).max_decoding_message_size(limits::MAX_UPDATE_BYTES);
        let (requests, outgoing) = mpsc::channel(2);
        let hello = Hello {
            host: settings.host().to_owned(),
            version: settings.version().to_owned(),
            generation: self.held.as_ref().map_or(0, |held| held.generation),
        };
        send(&requests, Request::Hello(hello)).await?;
        let response = client
            .sync(ReceiverStream::new(outgoing))
            .await
            .map_err(|status| unanswered(endpoint, &status))?;
        Ok((requests, response.into_inner()))
    }

    /// Verifies and hands on one update; the inner error is the text of the refusal.
    async fn update(&mut self, response: SyncResponse) -> Result<Result<(), String>, AttemptError> {
        let generation = response.generation;
        let result = match verify(self.held.as_ref(), response) {
            Err(None) => return Err(AttemptError::Empty),
            Err(Some(refusal)) => {
                tracing::error!(generation, %refusal, "policy refused");
                let error = format!("generation {generation} refused: {refusal}");
                self.report(|state| {
                    state.last_error = Some(error.clone());
                    state.refused = Some(error);
                });
                return Ok(Err(refusal.to_string()));
            }
            Ok(Verified::AlreadyHeld) => Ok(()),
            Ok(Verified::New(policy)) => self.apply(policy).await?,
        };
        // What the policy task refuses, it shows itself.
        self.report(|state| {
            state.last_error = None;
            state.refused = None;
        });
        if result.is_ok() {
            tracing::info!(generation, "policy accepted");
        }
        Ok(result)
    }

    /// Hands the policy to the policy task; it is held only if that task says so.
    async fn apply(&mut self, policy: Held) -> Result<Result<(), String>, SyncError> {
        let (reply, answer) = oneshot::channel();
        let update = Update {
            generation: policy.generation,
            documents: policy.documents.clone(),
            identities: policy.identities.clone(),
            reply,
        };
        self.updates
            .send(update)
            .await
            .map_err(|_| SyncError::PolicyTaskGone)?;
        let result = answer.await.map_err(|_| SyncError::PolicyTaskGone)?;
        if result.is_ok() {
            self.held = Some(policy);
        }
        Ok(result)
    }

    fn report(&self, change: impl FnOnce(&mut State)) {
        let held = self.held.as_ref().map_or(0, |held| held.generation);
        self.state.send_modify(|state| {
            state.generation = held;
            change(state);
        });
    }
}

async fn send(requests: &mpsc::Sender<SyncRequest>, request: Request) -> Result<(), AttemptError> {
    let request = SyncRequest {
        request: Some(request),
    };
    requests
        .send(request)
        .await
        .map_err(|_| AttemptError::Ended("the connection is closed".into()))
}
