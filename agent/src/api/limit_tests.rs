//! Clients that flood, stall or send what nobody asked for.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic fails the test")]

use std::time::Duration;

use ringfence_common::abi::{Verdict, event};
use ringfence_proto::{
    limits,
    v1::{
        self, agent_client::AgentClient, apply_request::Request, get_flows_response::Response,
        policy_change_client::PolicyChangeClient,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};
use tonic::Code;

use super::{connection::MAX_CONNECTIONS, fixture::Fixture, tests::channel, *};
use crate::change::{Applied, Caller, Refusal};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks for the status over a connection of its own.
async fn answers(fixture: &Fixture) -> bool {
    let mut client = AgentClient::new(channel(&fixture.path).await);
    let answer = client.get_status(v1::GetStatusRequest {});
    matches!(timeout(PATIENCE, answer).await, Ok(Ok(_)))
}

/// Whether the other end closes the connection.
async fn is_closed(stream: &mut UnixStream) -> bool {
    let mut bytes = [0; 64];
    loop {
        match timeout(PATIENCE, stream.read(&mut bytes)).await {
            Ok(Ok(0) | Err(_)) => return true,
            Ok(Ok(_)) => {}
            Err(_) => return false,
        }
    }
}

fn options() -> v1::ApplyRequest {
    v1::ApplyRequest {
        request: Some(Request::Options(v1::ApplyOptions {
            confirm_seconds: 60,
            ..v1::ApplyOptions::default()
        })),
    }
}

fn piece(name: &str, text: &[u8]) -> v1::ApplyRequest {
    v1::ApplyRequest {
        request: Some(Request::Piece(v1::DocumentPiece {
            name: name.to_owned(),
            text: text.to_vec(),
        })),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_locks_nobody_out() {
    let fixture = Fixture::start().await;
    let mut follower = AgentClient::new(channel(&fixture.path).await);
    let request = v1::GetFlowsRequest {
        follow: true,
        ..v1::GetFlowsRequest::default()
    };
    let mut stream = follower.get_flows(request).await.unwrap().into_inner();
    let mut flood = Vec::new();
    for round in 0..4 * MAX_CONNECTIONS {
        flood.push(UnixStream::connect(&fixture.path).await.unwrap());
        if round % MAX_CONNECTIONS == 0 {
            assert!(answers(&fixture).await, "after {round} connections");
        }
    }
    assert!(answers(&fixture).await);
    // Those beyond the limit are gone, the oldest first.
    for stream in flood.iter_mut().take(2 * MAX_CONNECTIONS) {
        assert!(is_closed(stream).await);
    }
    // Who says what he wants keeps his place.
    fixture.deny(1);
    let message = timeout(PATIENCE, stream.message()).await.unwrap().unwrap();
    let Some(Response::Flow(flow)) = message.unwrap().response else {
        panic!("no record");
    };
    assert_eq!(flow.cookie, 1);
}

#[tokio::test]
async fn a_connection_that_does_not_speak_is_closed() {
    let fixture = Fixture::start().await;
    let mut silent = UnixStream::connect(&fixture.path).await.unwrap();
    let mut half = UnixStream::connect(&fixture.path).await.unwrap();
    half.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let mut other = UnixStream::connect(&fixture.path).await.unwrap();
    other
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert!(is_closed(&mut silent).await);
    assert!(is_closed(&mut half).await);
    assert!(is_closed(&mut other).await);
    assert!(answers(&fixture).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_slows_nobody_and_is_told_what_it_lost() {
    let fixture = Fixture::start().await;
    let mut client = AgentClient::new(channel(&fixture.path).await);
    let request = v1::GetFlowsRequest {
        follow: true,
        ..v1::GetFlowsRequest::default()
    };
    let mut stalled = client.get_flows(request).await.unwrap().into_inner();
    // More than the windows, the queue of a follower and the log together hold.
    let pushed = 40_000;
    for cookie in 0..pushed {
        fixture.push(event::CLOSE, Verdict::Allow, cookie);
        if cookie % 1000 == 0 {
            assert!(answers(&fixture).await, "after {cookie} records");
        }
    }
    let (mut read, mut lost) = (0, 0);
    while read + lost < pushed {
        let message = timeout(PATIENCE, stalled.message()).await.unwrap().unwrap();
        match message.unwrap().response {
            Some(Response::Flow(_)) => read += 1,
            Some(Response::Lost(number)) => lost += number,
            None => panic!("an empty message"),
        }
    }
    assert!(lost > 0, "{read} records waited in memory");
    assert_eq!(read + lost, pushed);
}

#[tokio::test]
async fn what_is_no_document_never_reaches_the_policy_task() {
    let mut fixture = Fixture::start().await;
    let mut commands = fixture.commands.take().unwrap();
    let mut client = PolicyChangeClient::new(channel(&fixture.path).await);
    let large = vec![b'#'; 80 << 10];
    let cases = [
        (vec![], "first message"),
        (vec![piece("a.toml", b"")], "first message"),
        (vec![options(), options()], "not a `piece`"),
        (vec![options(), piece("../a.toml", b"")], "no name"),
        (vec![options(), piece(".a.toml", b"")], "no name"),
        (vec![options(), piece("a.txt", b"")], "no name"),
        (vec![options(), piece("", b"")], "no name"),
        (vec![options(), piece("a.toml", b"\xff")], "not UTF-8"),
        (
            vec![
                options(),
                piece("a.toml", b""),
                piece("b.toml", b""),
                piece("a.toml", b""),
            ],
            "twice",
        ),
        (
            vec![options(), piece("a.toml", &large)],
            "message length too large",
        ),
    ];
    for (messages, expected) in cases {
        let error = client
            .apply(tokio_stream::iter(messages))
            .await
            .unwrap_err();
        let text = error.message();
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let forever = v1::ApplyRequest {
        request: Some(Request::Options(v1::ApplyOptions {
            confirm_seconds: limits::MAX_CONFIRM_SECONDS + 1,
            ..v1::ApplyOptions::default()
        })),
    };
    let forever = vec![forever, piece("a.toml", b"")];
    let error = client.apply(tokio_stream::iter(forever)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(commands.try_recv().is_err());
}

#[tokio::test]
async fn more_documents_than_a_policy_may_have_are_refused_while_they_are_sent() {
    let fixture = Fixture::start().await;
    let mut client = PolicyChangeClient::new(channel(&fixture.path).await);
    let text = vec![b'#'; limits::MAX_PIECE_BYTES];
    let pieces = limits::MAX_UPDATE_BYTES / limits::MAX_PIECE_BYTES + 1;
    let all = std::iter::once(options())
        .chain(std::iter::repeat_with(move || piece("a.toml", &text)).take(2 * pieces));
    let error = client.apply(tokio_stream::iter(all)).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    // One at a time may send.
    let (_keep, waiting) = mpsc::channel(1);
    let waiting = tokio_stream::wrappers::ReceiverStream::new(waiting);
    let mut other = PolicyChangeClient::new(channel(&fixture.path).await);
    let first = tokio::spawn(async move { other.apply(waiting).await.map(drop) });
    let busy = timeout(PATIENCE, async {
        loop {
            let messages = tokio_stream::iter(Vec::new());
            let error = client.apply(messages).await.unwrap_err();
            if error.code() == Code::ResourceExhausted {
                return error.message().to_owned();
            }
        }
    });
    assert!(busy.await.unwrap().contains("at this moment"));
    first.abort();
}

#[tokio::test]
async fn the_policy_task_is_told_who_asks_over_which_connection() {
    let mut fixture = Fixture::start().await;
    let mut commands = fixture.commands.take().unwrap();
    let mut callers: Vec<Caller> = Vec::new();
    let first = channel(&fixture.path).await;
    let channels = [first.clone(), first, channel(&fixture.path).await];
    for channel in channels {
        let mut client = PolicyChangeClient::new(channel);
        let messages = tokio_stream::iter(vec![
            options(),
            piece("a.toml", b"#"),
            piece("a.toml", b"!"),
        ]);
        let (answer, asked) = tokio::join!(client.apply(messages), async {
            let Some(Command::Apply {
                wanted,
                confirm,
                by,
                reply,
            }) = commands.recv().await
            else {
                panic!("not asked to apply");
            };
            assert_eq!(wanted.files.get("a.toml").map(String::as_str), Some("#!"));
            assert_eq!(confirm, Some(Duration::from_secs(60)));
            let _ = reply.send(Ok(Applied {
                generation: 3,
                unchanged: false,
                warnings: Vec::new(),
                pending: None,
            }));
            by
        });
        assert_eq!(answer.unwrap().into_inner().generation, 3);
        callers.push(asked);
    }
    let [a, b, c] = callers.as_slice() else {
        panic!("{callers:?}");
    };
    assert_eq!(a, b);
    assert_ne!(a.connection, c.connection);
    assert_eq!(c.uid, nix::unistd::geteuid().as_raw());

    // A long reason is cut, and comes.
    let mut client = PolicyChangeClient::new(channel(&fixture.path).await);
    let (answer, ()) = tokio::join!(client.confirm(v1::ConfirmRequest {}), async {
        let Some(Command::Confirm { reply, .. }) = commands.recv().await else {
            panic!("not asked to confirm");
        };
        let _ = reply.send(Err(Refusal::State("ü\n".repeat(10_000))));
    });
    let error = answer.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().starts_with("ü\nü"), "{error}");
}
