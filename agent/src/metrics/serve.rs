//! Serves metrics over HTTP: bounded in connections and time, nothing else to see.

use std::{convert::Infallible, sync::Arc, time::Duration};

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
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{KernelCounts, Metrics};

/// Scrapes at a time; more wait.
const MAX_SCRAPES: usize = 16;
/// How long a client may take for a request.
const REQUEST: Duration = Duration::from_secs(10);
/// Pause after a failed accept (out of file descriptors).
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `/metrics` and `/healthz` until `cancel`. `source` reads the kernel's counters.
pub async fn serve<F>(listener: TcpListener, metrics: Metrics, source: F, cancel: CancellationToken)
where
    F: Fn() -> KernelCounts + Clone + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MAX_SCRAPES));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
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
        let (metrics, source) = (metrics.clone(), source.clone());
        let _detached = tokio::spawn(async move {
            let _place = place;
            let service = service_fn(move |request| {
                let response = respond(&metrics, &source, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // A client that breaks off or stalls is its own affair.
            let _outcome = timeout(REQUEST, connection).await;
        });
    }
}

fn respond(
    metrics: &Metrics,
    source: &impl Fn() -> KernelCounts,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, text) = match request.uri().path() {
        "/metrics" | "/healthz" if !is_read => (StatusCode::METHOD_NOT_ALLOWED, "use GET\n".into()),
        "/healthz" => (StatusCode::OK, "ok\n".into()),
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
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if let Ok(format) = prometheus::TEXT_FORMAT.parse() {
        let _previous = headers.insert(CONTENT_TYPE, format);
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let _previous = headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}
