//! What a well-behaved agent sees.

use anyhow::{Result, ensure};
use ringfence_proto::checksum::checksum;
use tonic::Code;

use super::{Running, agent, workload};

#[tokio::test]
async fn a_snapshot_comes_first_and_then_deltas() -> Result<()> {
    let web = workload("web");
    let controller = Running::start(&[("b.toml", &web), ("a.toml", "")]).await?;
    let mut host = controller.agent("host").await?;
    let (response, snapshot) = host.snapshot().await?;
    assert_eq!((response.generation, response.nonce), (1, 1));
    let names: Vec<_> = snapshot.documents.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["a.toml", "b.toml"]);
    let sum = checksum([("a.toml", ""), ("b.toml", &web)], [("web", 256)]);
    assert_eq!(response.checksum, sum);
    host.ack(&response).await?;
    host.quiet().await?;

    let db = workload("db");
    controller.write("c.toml", &db)?;
    let (response, delta) = host.delta().await?;
    assert_eq!((response.generation, delta.base), (2, 1));
    assert_eq!(delta.changed.len(), 1);
    assert_eq!(delta.identities.len(), 1);
    assert!(delta.removed.is_empty());
    let documents = [("a.toml", ""), ("b.toml", &web), ("c.toml", &db)];
    let sum = checksum(documents, [("web", 256), ("db", 257)]);
    assert_eq!(response.checksum, sum);
    host.ack(&response).await?;

    std::fs::remove_file(controller.dir.path().join("policy/c.toml"))?;
    let (response, delta) = host.delta().await?;
    assert_eq!((response.generation, delta.base), (3, 2));
    assert_eq!(delta.removed, ["c.toml"]);
    assert!(delta.changed.is_empty() && delta.identities.is_empty());
    let sum = checksum(
        [("a.toml", ""), ("b.toml", &web)],
        [("web", 256), ("db", 257)],
    );
    assert_eq!(response.checksum, sum);
    controller.stop().await
}

#[tokio::test]
async fn changes_coalesce_while_an_update_is_in_flight() -> Result<()> {
    let controller = Running::start(&[("a.toml", "")]).await?;
    let mut slow = controller.agent("slow").await?;
    let (first, _) = slow.snapshot().await?;
    for generation in 2..5 {
        controller.write("a.toml", &format!("# {generation}\n"))?;
        let _list = controller
            .list_until(|list| list.generation == generation)
            .await?;
    }
    slow.quiet().await?;
    slow.ack(&first).await?;
    let (response, delta) = slow.delta().await?;
    assert_eq!((response.generation, delta.base), (4, 1));
    assert_eq!(delta.changed.len(), 1);
    slow.ack(&response).await?;
    let list = controller
        .list_until(|list| agent(list, "slow").is_ok_and(|slow| slow.applied == 4))
        .await?;
    let slow = agent(&list, "slow")?;
    ensure!(slow.connected && slow.error.is_empty() && slow.sent == 4);
    controller.stop().await
}

#[tokio::test]
async fn after_a_refusal_comes_a_snapshot() -> Result<()> {
    let controller = Running::start(&[("a.toml", "")]).await?;
    let mut host = controller.agent("host").await?;
    let (response, _) = host.snapshot().await?;
    host.ack(&response).await?;
    controller.write("a.toml", "# 2\n")?;
    let (response, _) = host.delta().await?;
    host.nack(&response, "a.toml:1: no").await?;
    let (response, _) = host.snapshot().await?;
    assert_eq!(response.generation, 2);
    host.nack(&response, "a.toml:1: still no").await?;
    // The same snapshot would be refused again.
    host.quiet().await?;
    let list = controller.list().await?;
    let state = agent(&list, "host")?;
    assert_eq!((state.sent, state.applied), (2, 1));
    assert_eq!(state.error, "a.toml:1: still no");

    controller.write("a.toml", "# 3\n")?;
    let (response, _) = host.snapshot().await?;
    assert_eq!(response.generation, 3);
    host.ack(&response).await?;
    let _list = controller
        .list_until(|list| agent(list, "host").is_ok_and(|host| host.error.is_empty()))
        .await?;
    controller.stop().await
}

#[tokio::test]
async fn an_invalid_directory_is_shown_and_the_last_policy_is_served() -> Result<()> {
    let controller = Running::start(&[("a.toml", "")]).await?;
    controller.write("a.toml", "nonsense")?;
    let list = controller
        .list_until(|list| !list.store_error.is_empty())
        .await?;
    assert!(list.store_error.contains("a.toml:1"), "{list:?}");
    assert_eq!(list.generation, 1);
    let (response, _) = controller.agent("host").await?.snapshot().await?;
    assert_eq!(response.generation, 1);
    controller.stop().await
}

#[tokio::test]
async fn without_any_valid_policy_agents_wait() -> Result<()> {
    let controller = Running::start(&[("a.toml", "nonsense")]).await?;
    let mut host = controller.agent("host").await?;
    host.quiet().await?;
    controller.write("a.toml", "")?;
    let (response, _) = host.snapshot().await?;
    assert_eq!(response.generation, 1);
    controller.stop().await
}

#[tokio::test]
async fn the_newest_stream_of_a_host_wins() -> Result<()> {
    let controller = Running::start(&[("a.toml", "")]).await?;
    let mut old = controller.agent("host").await?;
    let _first = old.snapshot().await?;
    let mut new = controller.agent("host").await?;
    assert_eq!(old.end().await?.code(), Code::Aborted);
    let (response, _) = new.snapshot().await?;
    new.ack(&response).await?;
    let list = controller
        .list_until(|list| agent(list, "host").is_ok_and(|host| host.applied == 1))
        .await?;
    assert_eq!(list.agents.len(), 1);
    assert!(agent(&list, "host")?.connected);
    drop(new);
    let _list = controller
        .list_until(|list| agent(list, "host").is_ok_and(|host| !host.connected))
        .await?;
    controller.stop().await
}

#[tokio::test]
async fn a_shutdown_tells_the_agents() -> Result<()> {
    let controller = Running::start(&[("a.toml", "")]).await?;
    let mut host = controller.agent("host").await?;
    let _first = host.snapshot().await?;
    controller.stop().await?;
    assert_eq!(host.end().await?.code(), Code::Unavailable);
    Ok(())
}
