//! Controllers come and go.

use anyhow::Result;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Agent, Controller, Endpoint, Phase, State, SyncError, run, settings, snapshot, web};

#[tokio::test]
async fn a_controller_that_comes_back_finds_the_agent_with_its_policy() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("sock");
    let mut agent = Agent::on_socket(&socket, None)?;
    let state = agent.state(|state| state.last_error.is_some()).await?;
    assert_eq!(state.phase, Phase::Connecting);
    assert_eq!(state.endpoint, format!("unix:{}", socket.display()));

    let mut controller = Controller::listen(&socket)?;
    let mut stream = controller.accept().await?;
    assert_eq!(stream.hello().await?.host, "host-1");
    assert_eq!(stream.ask(snapshot(&web(1))).await?, None);
    drop(stream);
    controller.stop().await;
    let state = agent
        .state(|state| state.phase == Phase::Connecting && state.last_error.is_some())
        .await?;
    assert_eq!(state.generation, 1);

    std::fs::remove_file(&socket)?;
    let mut controller = Controller::listen(&socket)?;
    let mut stream = controller.accept().await?;
    assert_eq!(stream.hello().await?.generation, 1);
    assert_eq!(stream.ask(snapshot(&web(1))).await?, None);
    assert_eq!(stream.ask(snapshot(&web(2))).await?, None);
    assert_eq!(agent.applied().await?, web(1));
    assert_eq!(agent.applied().await?, web(2));
    agent.stop().await?;
    controller.stop().await;
    Ok(())
}

#[tokio::test]
async fn endpoints_are_tried_in_turn() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("second");
    let mut controller = Controller::listen(&socket)?;
    let endpoints = vec![
        Endpoint::Unix(dir.path().join("first")),
        Endpoint::Unix(socket.clone()),
    ];
    let mut agent = Agent::start(settings(endpoints)?, None, 0);
    let mut stream = controller.accept().await?;
    let _hello = stream.hello().await?;
    let state = agent.state(|state| state.phase == Phase::Connected).await?;
    assert_eq!(state.endpoint, format!("unix:{}", socket.display()));
    agent.stop().await?;
    controller.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_policy_that_is_accepted_after_its_refusal_is_acknowledged_on_a_new_stream() -> Result<()>
{
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("sock");
    let mut controller = Controller::listen(&socket)?;
    let agent = Agent::start(settings(vec![Endpoint::Unix(socket)])?, Some(web(1)), 2);
    let mut stream = controller.accept().await?;
    assert_eq!(stream.hello().await?.generation, 1);
    assert!(stream.ask(snapshot(&web(2))).await?.is_some());

    drop(agent.adopted.send_replace(Some(web(2))));
    let mut stream = controller.accept().await?;
    assert_eq!(stream.hello().await?.generation, 2);
    assert_eq!(stream.ask(snapshot(&web(2))).await?, None);
    // What is older than the policy held changes nothing.
    drop(agent.adopted.send_replace(Some(web(1))));
    assert_eq!(stream.ask(snapshot(&web(3))).await?, None);
    assert_eq!(stream.ask(snapshot(&web(4))).await?, None);
    agent.stop().await?;
    controller.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_lost_policy_task_ends_it_with_an_error() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("sock");
    let mut controller = Controller::listen(&socket)?;
    let (updates, received) = mpsc::channel(1);
    let (sender, _state) = watch::channel(State::default());
    drop(received);
    let settings = settings(vec![Endpoint::Unix(socket)])?;
    let task = tokio::spawn(run(
        settings,
        None,
        updates,
        watch::channel(None).1,
        watch::Sender::default().subscribe(),
        sender,
        CancellationToken::new(),
    ));
    let mut stream = controller.accept().await?;
    let _hello = stream.hello().await?;
    stream.send(snapshot(&web(1))).await?;
    assert_eq!(task.await?, Err(SyncError::PolicyTaskGone));
    controller.stop().await;
    Ok(())
}
