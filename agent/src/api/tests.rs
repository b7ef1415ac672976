//! A real client on a real socket.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic fails the test")]

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use ringfence_common::abi::{Verdict, event};
use ringfence_proto::v1::{self, agent_client::AgentClient, get_flows_response::Response};
use tokio::net::UnixStream;
use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use super::{fixture::Fixture, *};

/// A connection to the socket at a path.
pub(super) async fn channel(path: &Path) -> Channel {
    let path = path.to_owned();
    Endpoint::from_static("http://agent.invalid")
        .connect_with_connector(service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .unwrap()
}

async fn client(fixture: &Fixture) -> AgentClient<Channel> {
    AgentClient::new(channel(&fixture.path).await)
}

async fn cookies(stream: &mut Streaming<v1::GetFlowsResponse>, count: usize) -> Vec<u64> {
    let mut found = Vec::new();
    while found.len() < count {
        let Some(message) = stream.message().await.unwrap() else {
            break;
        };
        if let Some(Response::Flow(flow)) = message.response {
            found.push(flow.cookie);
        }
    }
    found
}

#[tokio::test]
async fn status_tells_what_the_tasks_publish() {
    let fixture = Fixture::start().await;
    let status = client(&fixture)
        .await
        .get_status(v1::GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (status.generation, status.workloads, status.policies),
        (7, 2, 3)
    );
    assert_eq!(
        (status.mode.as_str(), status.policy_source.as_str()),
        ("enforce", "files")
    );
    assert_eq!(status.counts.get("event-lost"), Some(&5));
    assert_eq!(status.counts.get("flow-queue-full"), Some(&0));
    assert_eq!(status.started.unwrap().seconds, 1_000_000_000);
    assert_eq!(status.policy_error, "web.toml:3: wrong");
    let notes: Vec<&str> = status
        .features
        .iter()
        .map(|feature| feature.note.as_str())
        .collect();
    assert_eq!(notes, ["bpf-lsm is not there", ""]);
}

#[tokio::test]
async fn lists_tell_who_selects_whom() {
    let fixture = Fixture::start().await;
    let mut client = client(&fixture).await;
    let workloads = client
        .list_workloads(v1::ListWorkloadsRequest {})
        .await
        .unwrap()
        .into_inner();
    let [db, web] = workloads.workloads.as_slice() else {
        panic!("{workloads:?}");
    };
    assert_eq!(db.policies, ["db", "db-draft"]);
    assert_eq!(
        (db.cgroups.as_slice(), db.selectors.as_slice()),
        (
            &["/db/1".to_owned()][..],
            &["cgroup = /db/*".to_owned()][..]
        )
    );
    assert_eq!(web.policies, ["web"]);
    assert!(web.identity >= 256);
    assert!(
        web.selectors.contains(&"exe = /usr/bin/web".to_owned()),
        "{:?}",
        web.selectors
    );
    assert!(
        web.location.starts_with("/etc/policy.toml:"),
        "{}",
        web.location
    );
    let policies = client
        .list_policies(v1::ListPoliciesRequest {})
        .await
        .unwrap()
        .into_inner();
    let [db, draft, web] = policies.policies.as_slice() else {
        panic!("{policies:?}");
    };
    assert_eq!(
        (db.workloads.as_slice(), db.rules),
        (&["db".to_owned()][..], 1)
    );
    assert_eq!(draft.mode, "draft");
    assert_eq!(
        (web.not_after.unwrap().seconds, web.not_before),
        (4_105_101_600, None)
    );
}

fn question(from: &str, to: &str, protocol: &str, port: u32) -> v1::ExplainRequest {
    v1::ExplainRequest {
        from: from.to_owned(),
        to: to.to_owned(),
        protocol: protocol.to_owned(),
        port,
    }
}

#[tokio::test]
async fn explain_names_the_rule_of_each_side() {
    let fixture = Fixture::start().await;
    let mut client = client(&fixture).await;
    let answer = client
        .explain(question("web", "db", "tcp", 5432))
        .await
        .unwrap()
        .into_inner();
    assert!(answer.allowed);
    let (egress, ingress) = (answer.egress.unwrap(), answer.ingress.unwrap());
    let rule = egress.enforced.unwrap().rule.unwrap();
    assert_eq!(
        (rule.policy.as_str(), rule.rule.as_str()),
        ("web", "egress[0]")
    );
    let draft = ingress.draft.unwrap();
    assert_eq!((draft.verdict, draft.reason.as_str()), (2, "rule-deny"));

    let answer = client
        .explain(question("web", "db", "", 22))
        .await
        .unwrap()
        .into_inner();
    assert!(!answer.allowed);
    assert_eq!(
        answer.egress.unwrap().enforced.unwrap().reason,
        "default-deny"
    );
}

#[tokio::test]
async fn explain_takes_addresses_and_reserved_names() {
    let fixture = Fixture::start().await;
    let mut client = client(&fixture).await;
    for (to, port, allowed) in [
        ("203.0.113.9", 443, true),
        ("198.51.100.1", 443, false),
        ("db@203.0.113.9", 443, false),
        ("world", 443, false),
    ] {
        let answer = client
            .explain(question("web", to, "tcp", port))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.allowed, allowed, "{to}: {answer:?}");
        assert_eq!(answer.ingress.is_some(), to.starts_with("db"), "{to}");
    }
    let inbound = client
        .explain(question("198.51.100.1", "db", "tcp", 5432))
        .await
        .unwrap()
        .into_inner();
    assert!(inbound.egress.is_none() && !inbound.allowed);
}

#[tokio::test]
async fn explain_applies_the_failsafe_list() {
    let fixture = Fixture::start().await;
    let mut client = client(&fixture).await;
    for (from, port, reason, note) in [
        ("192.0.2.9", 22, "failsafe-allow", false),
        ("192.0.2.9", 24, "default-deny", false),
        ("198.51.100.1", 22, "default-deny", false),
        ("web@192.0.2.9", 23, "failsafe-allow", false),
        ("world", 22, "default-deny", true),
        ("world", 24, "default-deny", false),
    ] {
        let answer = client.explain(question(from, "db", "tcp", port)).await;
        let answer = answer.unwrap().into_inner();
        let ingress = answer.ingress.unwrap();
        let found = [ingress.enforced, ingress.draft].map(|found| found.unwrap().reason);
        assert_eq!(found.first().unwrap(), reason, "{from} {port}");
        if reason == "failsafe-allow" {
            assert_eq!(found.last().unwrap(), reason, "{from} {port}");
        }
        assert_eq!(
            !answer.notes.is_empty(),
            note,
            "{from} {port}: {:?}",
            answer.notes
        );
    }
    let allowed = client.explain(question("192.0.2.9", "db", "tcp", 22)).await;
    assert!(allowed.unwrap().into_inner().allowed);
    // It is for inbound flows only.
    let outbound = client
        .explain(question("web", "192.0.2.9", "tcp", 22))
        .await;
    assert!(!outbound.unwrap().into_inner().allowed);
}

#[tokio::test]
async fn explain_in_draft_mode_audits() {
    let fixture = Fixture::start().await;
    fixture.set_mode(crate::config::Mode::Draft);
    let mut client = client(&fixture).await;
    let answer = client.explain(question("web", "db", "tcp", 22)).await;
    let answer = answer.unwrap().into_inner();
    assert!(answer.allowed);
    let egress = answer.egress.unwrap();
    let (enforced, draft) = (egress.enforced.unwrap(), egress.draft.unwrap());
    assert_eq!(
        (enforced.verdict, enforced.reason.as_str()),
        (3, "default-deny")
    );
    assert_eq!((draft.verdict, draft.reason.as_str()), (2, "default-deny"));
    assert!(
        answer.notes.iter().any(|note| note.contains("draft mode")),
        "{:?}",
        answer.notes
    );
    let passes = client.explain(question("web", "db", "tcp", 5432)).await;
    assert!(passes.unwrap().into_inner().notes.is_empty());
}

#[tokio::test]
async fn bad_questions_say_which_field_and_what_to_write() {
    let fixture = Fixture::start().await;
    let mut client = client(&fixture).await;
    for (request, code, words) in [
        (
            question("wep", "db", "tcp", 1),
            Code::NotFound,
            ["`from`", "did you mean web"],
        ),
        (
            question("web", "zzz", "tcp", 1),
            Code::NotFound,
            ["`to`", "workload list"],
        ),
        (
            question("", "db", "tcp", 1),
            Code::InvalidArgument,
            ["`from`", "empty"],
        ),
        (
            question("web", "db@x", "tcp", 1),
            Code::InvalidArgument,
            ["`to`", "no address"],
        ),
        (
            question("web", "db", "sctpp", 1),
            Code::InvalidArgument,
            ["`protocol`", "icmpv6"],
        ),
        (
            question("web", "db", "tcp", 70_000),
            Code::InvalidArgument,
            ["`port`", "65535"],
        ),
        (
            question("web", "db", "icmp", 256),
            Code::InvalidArgument,
            ["`port`", "255"],
        ),
        (
            question("10.0.0.1", "world", "tcp", 1),
            Code::InvalidArgument,
            ["`to`", "workload"],
        ),
    ] {
        let error = client.explain(request.clone()).await.unwrap_err();
        assert_eq!(error.code(), code, "{request:?}");
        for word in words {
            assert!(
                error.message().contains(word),
                "{word}: {}",
                error.message()
            );
        }
    }
}

#[tokio::test]
async fn flows_are_filtered_before_the_last_are_taken() {
    let fixture = Fixture::start().await;
    for cookie in 1..=6 {
        let verdict = if cookie % 2 == 0 {
            Verdict::Deny
        } else {
            Verdict::Allow
        };
        fixture.push(event::OPEN, verdict, cookie);
    }
    let mut client = client(&fixture).await;
    let all = v1::GetFlowsRequest::default();
    let mut stream = client.get_flows(all).await.unwrap().into_inner();
    assert_eq!(cookies(&mut stream, 100).await, [1, 2, 3, 4, 5, 6]);
    let denied = v1::GetFlowsRequest {
        last: 2,
        filters: vec![v1::FlowFilter {
            verdict: vec![2],
            ..v1::FlowFilter::default()
        }],
        ..v1::GetFlowsRequest::default()
    };
    let mut stream = client.get_flows(denied).await.unwrap().into_inner();
    assert_eq!(cookies(&mut stream, 100).await, [4, 6]);
    let wrong = v1::GetFlowsRequest {
        filters: vec![v1::FlowFilter {
            port: vec![70_000],
            ..v1::FlowFilter::default()
        }],
        ..v1::GetFlowsRequest::default()
    };
    assert_eq!(
        client.get_flows(wrong).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn following_joins_the_past_and_ends_with_the_agent() {
    let fixture = Fixture::start().await;
    for cookie in 1..=3 {
        fixture.deny(cookie);
    }
    let mut client = client(&fixture).await;
    let request = v1::GetFlowsRequest {
        last: 2,
        follow: true,
        filters: Vec::new(),
    };
    let mut stream = client.get_flows(request).await.unwrap().into_inner();
    assert_eq!(cookies(&mut stream, 2).await, [2, 3]);
    for cookie in 4..=5 {
        fixture.deny(cookie);
    }
    assert_eq!(cookies(&mut stream, 2).await, [4, 5]);
    fixture.cancel.cancel();
    assert_eq!(
        stream.message().await.unwrap_err().code(),
        Code::Unavailable
    );
    drop((stream, client));
    tokio::time::timeout(Duration::from_secs(5), fixture.server)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(!fixture.path.exists());
}

#[tokio::test]
async fn the_number_of_readers_is_bounded() {
    let fixture = Fixture::start().await;
    let mut client = client(&fixture).await;
    let follow = v1::GetFlowsRequest {
        follow: true,
        ..v1::GetFlowsRequest::default()
    };
    let mut streams = Vec::new();
    for _ in 0..flows::MAX_READERS {
        streams.push(client.get_flows(follow.clone()).await.unwrap());
    }
    let error = client.get_flows(follow.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    drop(streams);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(client.get_flows(follow).await.is_ok());
}

#[tokio::test]
async fn large_requests_are_refused() {
    let fixture = Fixture::start().await;
    let request = question(&"x".repeat(100_000), "db", "tcp", 1);
    let error = client(&fixture).await.explain(request).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange);
}

#[tokio::test]
async fn health_and_reflection_answer() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let fixture = Fixture::start().await;
    let channel = channel(&fixture.path).await;
    let request = HealthCheckRequest {
        service: "ringfence.v1.Agent".to_owned(),
    };
    let health = HealthClient::new(channel.clone())
        .check(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(health.status, 1);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list of services");
    };
    assert!(
        list.service
            .iter()
            .any(|service| service.name == "ringfence.v1.Agent")
    );
}

#[tokio::test]
async fn the_socket_is_private_and_its_directory_is_not() {
    let fixture = Fixture::start().await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&fixture.path), 0o600);
    assert_eq!(mode(fixture.path.parent().unwrap()), 0o755);
    assert_eq!(
        fs::read_dir(fixture.path.parent().unwrap())
            .unwrap()
            .count(),
        1
    );
}

#[tokio::test]
async fn a_live_socket_is_not_taken() {
    let fixture = Fixture::start().await;
    let error = bind(&fixture.path).await.unwrap_err();
    let expected = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&expected), "{error}");
    assert!(
        client(&fixture)
            .await
            .get_status(v1::GetStatusRequest {})
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_file_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listener = bind(&path).await.unwrap();
    assert_eq!(listener.path(), path);
    // Its name goes with it, unless another has taken that.
    drop(listener);
    assert!(!path.exists());
    let listener = bind(&path).await.unwrap();
    fs::remove_file(&path).unwrap();
    let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    drop(listener);
    assert!(path.exists());
    drop(other);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    assert!(matches!(
        bind(&path).await,
        Err(ApiError::NotASocket { .. })
    ));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let long = directory.path().join("x".repeat(120));
    let error = bind(&long).await.unwrap_err().to_string();
    assert!(error.contains("shorter path"), "{error}");
    let error = bind(Path::new("/proc/nowhere/agent.sock"))
        .await
        .unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("may write to") && !error.contains("shorter"),
        "{error}"
    );
}

#[test]
fn only_root_and_the_agents_user_are_answered() {
    assert!(socket::permitted(Some(0), 998));
    assert!(socket::permitted(Some(998), 998));
    assert!(!socket::permitted(Some(1000), 998));
    assert!(!socket::permitted(Some(1000), 0));
    assert!(!socket::permitted(None, 0));
    let error = socket::check_peer(tonic::Request::new(())).unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    assert!(error.message().contains("as root"), "{}", error.message());
}
