//! What agents report of endpoints, and how long it lasts.

use anyhow::Result;
use ringfence_proto::v1::{
    Endpoint, EndpointReport, ListAgentEndpointsRequest, controller_client::ControllerClient,
    sync_request::Request,
};
use tonic::Code;

use super::{Agent, Running, agent};

fn endpoint(port: u32) -> Endpoint {
    Endpoint {
        address: vec![10, 0, 0, 1],
        protocol: 6,
        port,
        identity: 256,
        workload: "web".into(),
        ..Endpoint::default()
    }
}

async fn report(host: &mut Agent, reset: bool, ports: impl Iterator<Item = u32>) -> Result<()> {
    let report = EndpointReport {
        reset,
        added: ports.map(endpoint).collect(),
        ..EndpointReport::default()
    };
    host.send(Request::Endpoints(report)).await
}

/// Host and port of what is listed; the status code where that is refused.
async fn listed(controller: &Running, host: &[&str]) -> Result<Result<Vec<(String, u32)>, Code>> {
    let mut client = ControllerClient::new(controller.channel().await?);
    let request = ListAgentEndpointsRequest {
        host: host.iter().map(ToString::to_string).collect(),
        workload: vec!["web".into()],
    };
    let mut stream = match client.list_agent_endpoints(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Ok(Err(status.code())),
    };
    let mut found = Vec::new();
    while let Some(message) = stream.message().await? {
        let host = message.host;
        found.extend(message.endpoints.iter().map(|it| (host.clone(), it.port)));
    }
    Ok(Ok(found))
}

#[tokio::test]
async fn reports_are_kept_by_host_as_long_as_the_stream_lives() -> Result<()> {
    let controller = Running::start(&[("a.toml", "")]).await?;
    let mut one = controller.agent("one").await?;
    let mut two = controller.agent("two").await?;
    let (first, _) = one.snapshot().await?;
    assert_eq!(first.max_endpoints, 4096);
    // A report is no answer to the update.
    report(&mut one, true, 1..=2).await?;
    one.ack(&first).await?;
    report(&mut two, true, 3..=3).await?;
    let _both = controller
        .list_until(|list| {
            let count = |host| agent(list, host).map_or(0, |it| it.endpoints);
            (count("one"), count("two")) == (2, 1)
        })
        .await?;
    let all = [("one", 1), ("one", 2), ("two", 3)].map(|(host, port)| (host.to_owned(), port));
    assert_eq!(listed(&controller, &[]).await?, Ok(all.to_vec()));
    let last = vec![("two".to_owned(), 3)];
    assert_eq!(listed(&controller, &["two"]).await?, Ok(last.clone()));
    assert_eq!(listed(&controller, &["three"]).await?, Err(Code::NotFound));

    drop(one);
    let after = controller
        .list_until(|list| agent(list, "one").is_ok_and(|it| !it.connected))
        .await?;
    assert_eq!(agent(&after, "one")?.endpoints, 0);
    assert_eq!(listed(&controller, &[]).await?, Ok(last));
    controller.stop().await
}

#[tokio::test]
async fn a_report_that_breaks_the_rules_ends_the_stream() -> Result<()> {
    let controller = Running::start(&[("a.toml", "")]).await?;
    let mut host = controller.agent("host").await?;
    report(&mut host, true, 0..=0).await?;
    assert_eq!(host.end().await?.code(), Code::InvalidArgument);

    let mut host = controller.agent("host").await?;
    report(&mut host, true, 1..=501).await?;
    assert_eq!(host.end().await?.code(), Code::InvalidArgument);

    let mut host = controller.agent("host").await?;
    for first in (0..4500).step_by(500) {
        report(&mut host, first == 0, first + 1..=first + 500).await?;
    }
    assert_eq!(host.end().await?.code(), Code::ResourceExhausted);
    let after = controller
        .list_until(|list| agent(list, "host").is_ok_and(|it| !it.connected))
        .await?;
    assert_eq!(agent(&after, "host")?.endpoints, 0);
    controller.stop().await
}
