//! Serves metrics over HTTP: bounded in connections and time, nothing else to see.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{KernelCounts, Metrics};
use crate::api::Status;

/// Connections at a time. Who waits behind them is served at once: the oldest one is closed.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to send a request.
const HEADER: Duration = Duration::from_secs(2);
/// How long a client may take for everything.
const REQUEST: Duration = Duration::from_secs(10);
/// Pause after a failed accept (out of file descriptors).
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `/metrics` and `/healthz` until `cancel`. `source` reads the kernel's counters; `status` tells
/// whether the host is guarded.
pub async fn serve<F>(
    listener: TcpListener,
    metrics: Metrics,
    source: F,
    status: watch::Receiver<Arc<Status>>,
    cancel: CancellationToken,
) where
    F: Fn() -> KernelCounts + Clone + Send + 'static,
{
    let mut connections = JoinSet::new();
    let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the metrics could not be accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        oldest_first.retain(|connection| !connection.is_finished());
        if oldest_first.len() >= MAX_CONNECTIONS
            && let Some(oldest) = oldest_first.pop_front()
        {
            oldest.abort();
        }
        let (metrics, source, status) = (metrics.clone(), source.clone(), status.clone());
        let answer = move |request: &_| respond(&metrics, &source, &status.borrow(), request);
        oldest_first.push_back(connections.spawn(converse(stream, answer)));
    }
}

/// One request and its answer. A client that breaks off or stalls is its own affair.
async fn converse<F>(stream: TcpStream, answer: F)
where
    F: Fn(&Request<Incoming>) -> Response<Full<Bytes>>,
{
    let service = service_fn(move |request| {
        let response = answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let _outcome = timeout(REQUEST, connection).await;
}

fn respond(
    metrics: &Metrics,
    source: &impl Fn() -> KernelCounts,
    status: &Status,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let (code, text) = match request.uri().path() {
        "/metrics" | "/healthz" if !is_read => (StatusCode::METHOD_NOT_ALLOWED, "use GET\n".into()),
        "/healthz" => match unguarded(status) {
            None => (StatusCode::OK, "ok\n".into()),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n").into()),
        },
        "/metrics" => match metrics.render(&source()) {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("{error}\n").into(),
            ),
        },
        _ => (StatusCode::NOT_FOUND, "see /metrics and /healthz\n".into()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    if let Ok(format) = prometheus::TEXT_FORMAT.parse() {
        let _previous = headers.insert(CONTENT_TYPE, format);
    }
    if code == StatusCode::METHOD_NOT_ALLOWED {
        let _previous = headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// Why the host is not guarded; `None` if it is.
fn unguarded(status: &Status) -> Option<String> {
    let missing: Vec<&str> = status
        .hooks
        .iter()
        .filter(|hook| !hook.attached)
        .map(|hook| hook.name.as_str())
        .collect();
    if status.hooks.is_empty() {
        return Some("not guarded: no program is attached; see `ringfence status`".to_owned());
    }
    if missing.is_empty() {
        return None;
    }
    Some(format!(
        "not guarded: {} of {} programs are not attached ({}); see `ringfence status`",
        missing.len(),
        status.hooks.len(),
        missing.join(", ")
    ))
}
