//! The agent's gRPC interface on a unix socket: `ringfence.v1.Agent`, `ringfence.v1.PolicyChange`, health and reflection.
//!
//! Reads what other tasks publish, asks the policy task for changes and owns nothing but the socket. Only root and the
//! agent's own user are answered. Sizes of requests, connections, streams and readers are bounded, and so is the time that
//! a client may take for a request.

mod changes;
mod connection;
mod convert;
mod endpoints;
mod error;
mod explain;
#[cfg(test)]
pub(crate) mod fixture;
mod flows;
pub(crate) mod fuzz;
#[cfg(test)]
mod limit_tests;
mod lists;
mod processes;
mod service;
mod socket;
mod status;
#[cfg(test)]
mod tests;
mod why;

use std::{sync::Arc, time::Duration};

use ringfence_common::abi::FailsafeEntry;
use ringfence_policy::{
    compile::Compiled,
    model::{Identities, PolicySet},
};
use ringfence_proto::v1::{agent_server::AgentServer, policy_change_server::PolicyChangeServer};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::{service::InterceptorLayer, transport::Server};

use crate::{
    change::Command,
    endpoints as listening, flow,
    identity::{Inventory, Tables},
};

pub use convert::decision;
pub use error::ApiError;
pub use socket::{Listener, bind};
pub use status::{ControllerState, Feature, Hook, PolicySource, Status};

/// Bytes of a request at most.
const MAX_REQUEST: usize = 64 << 10;
/// Requests on one connection at a time.
const MAX_STREAMS: u32 = 64;
/// Bytes that a client may send ahead, for each request and for all of a connection.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;
/// Bytes of the headers of a request at most.
const MAX_HEADERS: u32 = 16 << 10;
/// How often a silent client is asked whether it is there, and how long it may take to say so.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long a request may take until its answer begins.
const REQUEST: Duration = Duration::from_secs(120);

/// What the interface tells of.
#[derive(Clone)]
pub struct Context {
    /// The policy task.
    pub changes: mpsc::Sender<Command>,
    /// State of the agent.
    pub status: watch::Receiver<Arc<Status>>,
    /// Policy in force.
    pub policy: watch::Receiver<Arc<PolicyView>>,
    /// Inbound flows that no policy can cut.
    pub failsafe: Arc<[FailsafeEntry]>,
    /// Flow log.
    pub flows: flow::Handle,
    /// Who is who, as the kernel was told.
    pub tables: watch::Receiver<Arc<Tables>>,
    /// Where workloads listen.
    pub endpoints: listening::Handle,
    /// Executables larger than this have no digest, bytes.
    pub hash_limit: u64,
    /// Reads `CLOCK_BOOTTIME`, nanoseconds.
    pub boot_now_ns: fn() -> u64,
}

/// Policy in force, as it was written and as it was compiled.
#[derive(Clone, Debug, Default)]
pub struct PolicyView {
    /// Valid policy.
    pub set: Arc<PolicySet>,
    /// Identity of each workload.
    pub identities: Arc<Identities>,
    /// Tables.
    pub compiled: Arc<Compiled>,
    /// Matching cgroups of each workload, as paths below the guarded root.
    pub cgroups: Inventory,
}

/// Serves until `cancel`; then streams end, and the socket is removed.
///
/// # Errors
/// The server could not be built or its socket failed.
pub async fn serve(
    context: Context,
    listener: Listener,
    cancel: CancellationToken,
) -> Result<(), ApiError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health
        .set_serving::<AgentServer<service::AgentService>>()
        .await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(ringfence_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let changes = PolicyChangeServer::new(changes::ChangeService::new(
        context.changes.clone(),
        context.boot_now_ns,
    ))
    .max_decoding_message_size(MAX_REQUEST);
    let agent = AgentServer::new(service::AgentService::new(context, cancel.clone()))
        .max_decoding_message_size(MAX_REQUEST);
    // The name goes when this ends.
    let (incoming, _name) = listener.into_parts();
    let served = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .timeout(REQUEST)
        .layer(InterceptorLayer::new(socket::check_peer))
        .add_service(agent)
        .add_service(changes)
        .add_service(health_service.max_decoding_message_size(MAX_REQUEST))
        .add_service(reflection.max_decoding_message_size(MAX_REQUEST))
        .serve_with_incoming_shutdown(connection::incoming(incoming), cancel.cancelled_owned())
        .await;
    Ok(served?)
}
