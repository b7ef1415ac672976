//! A controller that lies, stammers and floods: the policy held stays, the agent stays.

use anyhow::{Context as _, Result};
use ringfence_proto::v1::{Delta, SyncResponse};

use super::{Agent, Controller, Endpoint, Phase, delta, held, settings, snapshot, web};

#[tokio::test]
async fn lies_are_refused_and_the_truth_is_taken_afterwards() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("sock");
    let mut controller = Controller::listen(&socket)?;
    let mut agent = Agent::on_socket(&socket, Some(web(7)))?;
    let mut stream = controller.accept().await?;
    assert_eq!(stream.hello().await?.generation, 7);

    let mut unsummed = snapshot(&web(8));
    unsummed.checksum = vec![1; 32];
    let huge = "x".repeat(1 << 20);
    let lies = [
        (snapshot(&web(6)), "not newer"),
        (unsummed, "checksum"),
        (snapshot(&held(8, &[(&huge, "")], &[])), "document name"),
        (snapshot(&held(8, &[("../web", "")], &[])), "document name"),
        (snapshot(&held(8, &[], &[("web", 2)])), "256.."),
        (snapshot(&held(8, &[], &[("web", 999)])), "had identity 256"),
        (
            snapshot(&held(u64::MAX, &[("\n", "")], &[])),
            "document name",
        ),
        (
            delta(3, &web(8), Delta::default()),
            "builds on generation 3",
        ),
        (delta(7, &web(8), Delta::default()), "checksum"),
    ];
    for (lie, reason) in lies {
        let refusal = stream.ask(lie).await?.context("a refusal")?;
        assert!(refusal.contains(reason), "{refusal}");
        assert!(refusal.len() <= 4096);
        let state = agent.state.borrow().clone();
        assert_eq!(state.generation, 7);
        assert_eq!(state.refused, state.last_error);
        let shown = state.last_error.unwrap_or_default();
        assert!(shown.contains(reason), "{shown}");
    }
    assert!(agent.applied.try_recv().is_err());

    assert_eq!(stream.ask(snapshot(&web(9))).await?, None);
    assert_eq!(agent.applied().await?, web(9));
    let state = agent.state(|state| state.generation == 9).await?;
    assert_eq!(state.phase, Phase::Connected);
    assert_eq!((state.last_error, state.refused), (None, None));
    agent.stop().await?;
    controller.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_refusal_of_the_policy_task_is_a_nack_and_nothing_advances() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("sock");
    let mut controller = Controller::listen(&socket)?;
    let mut agent = Agent::start(settings(vec![Endpoint::Unix(socket)])?, None, 2);
    let mut stream = controller.accept().await?;
    assert_eq!(stream.hello().await?.generation, 0);
    assert_eq!(stream.ask(snapshot(&web(1))).await?, None);
    assert_eq!(
        stream.ask(snapshot(&web(2))).await?.as_deref(),
        Some("web.toml:1: refused")
    );
    // The policy task shows its own refusals.
    let state = agent.state(|state| state.generation == 1).await?;
    assert_eq!(state.last_error, None);
    assert_eq!(stream.ask(snapshot(&web(3))).await?, None);
    let state = agent.state(|state| state.generation == 3).await?;
    assert_eq!(state.last_error, None);
    agent.stop().await?;
    controller.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_message_without_an_update_and_a_flood_of_lies_end_the_stream() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("sock");
    let mut controller = Controller::listen(&socket)?;
    let mut agent = Agent::on_socket(&socket, None)?;

    let mut stream = controller.accept().await?;
    let _hello = stream.hello().await?;
    stream.send(SyncResponse::default()).await?;

    let mut stream = controller.accept().await?;
    let _hello = stream.hello().await?;
    let mut refused = 0;
    while let Ok(Some(_)) = stream.ask(snapshot(&held(0, &[], &[]))).await {
        refused += 1;
    }
    assert!(refused <= 16, "{refused}");

    let mut stream = controller.accept().await?;
    let _hello = stream.hello().await?;
    assert_eq!(stream.ask(snapshot(&web(1))).await?, None);
    assert_eq!(agent.applied().await?, web(1));
    agent.stop().await?;
    controller.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_peer_that_speaks_another_protocol_is_survived() -> Result<()> {
    use tokio::io::AsyncWriteExt as _;

    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("sock");
    let listener = tokio::net::UnixListener::bind(&socket)?;
    let mut agent = Agent::on_socket(&socket, None)?;
    for garbage in [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &[0xff; 4096], b""] {
        let (mut peer, _) = listener.accept().await?;
        // The agent may hang up first.
        let _ = peer.write_all(garbage).await;
        drop(peer);
    }
    let state = agent.state(|state| state.last_error.is_some()).await?;
    assert_eq!(state.phase, Phase::Connecting);
    agent.stop().await
}
