//! What an agent, a second controller or a stranger may not do.

use anyhow::{Result, ensure};
use ringfence_controller::{
    listen::ListenError,
    serve::{Controller, ServeError},
};
use ringfence_proto::v1::{Ack, Hello, Nack, SyncRequest, sync_request::Request};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{Running, config, directory};

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_stream() -> Result<()> {
    let controller = Running::start(&[("a.toml", "")]).await?;
    for host in ["", "a\nb", &"x".repeat(256)] {
        let status = controller.agent(host).await?.end().await?;
        assert_eq!(status.code(), Code::InvalidArgument, "{host:?} {status}");
    }
    let ack = Ack {
        generation: 1,
        nonce: 99,
    };
    for request in [Request::Hello(Hello::default()), Request::Ack(ack)] {
        let mut host = controller.agent("host").await?;
        host.send(request).await?;
        assert_eq!(host.end().await?.code(), Code::InvalidArgument);
    }
    let mut host = controller.agent("host").await?;
    host.requests.send(SyncRequest { request: None }).await?;
    assert_eq!(host.end().await?.code(), Code::InvalidArgument);
    controller.stop().await
}

#[tokio::test]
async fn a_huge_refusal_ends_the_stream_and_a_long_one_is_clipped() -> Result<()> {
    let controller = Running::start(&[("a.toml", "")]).await?;
    let mut host = controller.agent("host").await?;
    let (response, _) = host.snapshot().await?;
    host.nack(&response, &"ü".repeat(20_000)).await?;
    let list = controller
        .list_until(|list| list.agents.iter().any(|host| !host.error.is_empty()))
        .await?;
    ensure!(list.agents.iter().all(|host| host.error.len() <= 4096));

    let mut host = controller.agent("host").await?;
    let nack = Nack {
        generation: 1,
        nonce: 1,
        error: "x".repeat(1 << 17),
    };
    host.send(Request::Nack(nack)).await?;
    assert_eq!(host.end().await?.code(), Code::OutOfRange);
    controller.stop().await
}

#[tokio::test]
async fn no_more_agents_than_configured() -> Result<()> {
    let dir = directory()?;
    let config = config(&dir, 2);
    let controller = Running::start_with(dir, &config, &[("a.toml", "")]).await?;
    let mut one = controller.agent("one").await?;
    let mut two = controller.agent("two").await?;
    let _first = one.snapshot().await?;
    let _first = two.snapshot().await?;
    let mut three = controller.agent("three").await?;
    assert_eq!(three.end().await?.code(), Code::ResourceExhausted);
    drop(one);
    let _list = controller
        .list_until(|list| list.agents.iter().any(|host| !host.connected))
        .await?;
    let mut three = controller.agent("three").await?;
    let _first = three.snapshot().await?;
    let list = controller.list().await?;
    assert_eq!(list.agents.len(), 2);
    controller.stop().await
}

#[tokio::test]
async fn a_second_controller_names_what_is_taken() -> Result<()> {
    let first = Running::start(&[("a.toml", "")]).await?;
    let mut same_state = config(&first.dir, 8);
    let error = Controller::start(&same_state).await.err();
    assert!(matches!(error, Some(ServeError::Store(_))), "{error:?}");
    same_state.state_dir = first.dir.path().join("other");
    let error = Controller::start(&same_state).await.err();
    let Some(ServeError::Listen(error @ ListenError::InUse(_))) = error else {
        anyhow::bail!("{error:?}");
    };
    assert!(error.to_string().contains("sock"));
    first.stop().await
}

#[tokio::test]
async fn health_is_served() -> Result<()> {
    let controller = Running::start(&[("a.toml", "")]).await?;
    let mut client = HealthClient::new(controller.channel().await?);
    for service in ["", "ringfence.v1.PolicySync", "ringfence.v1.Controller"] {
        let service = service.to_owned();
        let answer = client.check(HealthCheckRequest { service }).await?;
        assert_eq!(answer.into_inner().status, 1);
    }
    controller.stop().await
}
