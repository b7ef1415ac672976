//! Scrapes over real sockets.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic fails the test"
)]

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    api::{Status, fixture::status},
    flow,
};

fn counts() -> KernelCounts {
    let mut kernel = KernelCounts {
        counts: (1..=u64::from(ringfence_common::abi::count::LEN)).collect(),
        reasons: vec![0; 128],
    };
    let slot = reason::slot(Direction::Egress as u8, Reason::DeniedDefault as u8);
    kernel.reasons[slot as usize] = 42;
    kernel
}

struct Server {
    address: SocketAddr,
    metrics: Metrics,
    status: watch::Sender<Arc<Status>>,
    cancel: CancellationToken,
}

async fn started() -> Server {
    let (handle, _store) = flow::open(1);
    let metrics = Metrics::new(handle.counters()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cancel = CancellationToken::new();
    let (status, published) = watch::channel(Arc::new(status()));
    let _task = tokio::spawn(serve(
        listener,
        metrics.clone(),
        counts,
        published,
        cancel.clone(),
    ));
    Server {
        address,
        metrics,
        status,
        cancel,
    }
}

async fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    exchange(address, request.as_bytes()).await
}

async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _read = stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_scrape_tells_the_counters() {
    let Server {
        address,
        metrics,
        status: _status,
        ..
    } = started().await;
    metrics.policy_applied(7, 3, Duration::from_millis(5));
    metrics.policy_refused();
    metrics.newest_policy_refused(true);
    metrics.controller_connected(true);
    metrics.repaired(2, 29);
    let text = exchange(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    for line in [
        "ringfence_decisions_total{direction=\"egress\",verdict=\"deny\",reason=\"default-deny\"} 42",
        "ringfence_kernel_events_total{kind=\"sent\"} 1",
        "ringfence_kernel_events_total{kind=\"lost\"} 2",
        "ringfence_kernel_events_total{kind=\"folded\"} 11",
        "ringfence_failures_total{what=\"storage-failed\"} 3",
        "ringfence_detours_total{what=\"ancestor-walk\"} 5",
        "ringfence_flows_total{event=\"deny\",verdict=\"deny\"} 0",
        "ringfence_flow_records_lost_total 0",
        "ringfence_flow_records_evicted_total 0",
        "ringfence_live_flows 0",
        "ringfence_policy_generation 7",
        "ringfence_policy_apply_seconds_count 1",
        "ringfence_policy_refused_total 1",
        "ringfence_newest_policy_refused 1",
        "ringfence_workloads 3",
        "ringfence_controller_connected 1",
        "ringfence_hooks_reattached_total 2",
        "ringfence_pins_restored_total 29",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(text.contains("ringfence_build_info{version="), "{text}");
    for detour in ["ancestor-walk", "pending", "rejudged"] {
        let failure = format!("ringfence_failures_total{{what=\"{detour}\"}}");
        assert!(!text.contains(&failure), "{failure}\n{text}");
    }
}

#[tokio::test]
async fn other_requests_are_answered_and_bounded() {
    let Server {
        address,
        status: _status,
        ..
    } = started().await;
    let health = exchange(address, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(
        health.starts_with("HTTP/1.1 200") && health.ends_with("ok\n"),
        "{health}"
    );
    let missing = exchange(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    let post = exchange(address, b"POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
    let garbage = exchange(address, b"\x00\xff\xfe\r\n\r\n").await;
    assert!(
        garbage.is_empty() || garbage.starts_with("HTTP/1.1 400"),
        "{garbage}"
    );
}

#[tokio::test]
async fn health_tells_when_the_host_is_not_guarded() {
    let Server {
        address, status, ..
    } = started().await;
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    status.send_modify(|status| Arc::make_mut(status).hooks[1].attached = false);
    let text = get(address, "/healthz").await;
    assert!(text.starts_with("HTTP/1.1 503"), "{text}");
    assert!(
        text.contains("1 of 2 programs are not attached (bind4)"),
        "{text}"
    );
    status.send_modify(|status| Arc::make_mut(status).hooks.clear());
    let text = get(address, "/healthz").await;
    assert!(
        text.starts_with("HTTP/1.1 503") && text.contains("no program"),
        "{text}"
    );
    // The counters are still told.
    assert!(get(address, "/metrics").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn idle_connections_keep_nobody_waiting() {
    let Server {
        address,
        status: _status,
        ..
    } = started().await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    for path in ["/healthz", "/metrics"] {
        let text = get(address, path).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
    // The oldest had to go.
    let mut byte = [0];
    assert_eq!(idle[0].read(&mut byte).await.unwrap(), 0);
}

#[tokio::test]
async fn serving_ends_when_cancelled() {
    let Server {
        address, cancel, ..
    } = started().await;
    cancel.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[test]
fn no_decisions_yet_is_no_error() {
    let (handle, _store) = flow::open(1);
    let metrics = Metrics::new(handle.counters()).unwrap();
    let text = String::from_utf8(metrics.render(&KernelCounts::default()).unwrap()).unwrap();
    assert!(text.contains("ringfence_live_flows 0"), "{text}");
    assert!(!text.contains("ringfence_decisions_total"), "{text}");
}
