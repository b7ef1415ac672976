//! Endpoints go up to a controller that takes them, on every stream anew.

use std::net::{IpAddr, Ipv4Addr};

use ringfence_proto::v1::EndpointReport;

use super::*;
use crate::endpoints::Endpoint as Listening;

fn endpoints(ports: &[u16]) -> Arc<Endpoints> {
    let endpoint = |port: &u16| Listening {
        identity: 256,
        workload: "web".into(),
        namespace: 1,
        protocol: 6,
        port: *port,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        dual_stack: false,
        device: 0,
    };
    Arc::new(Endpoints {
        list: ports.iter().map(endpoint).collect(),
        ..Endpoints::default()
    })
}

async fn report(stream: &mut Stream) -> Result<EndpointReport> {
    match stream.receive().await? {
        Sent::Endpoints(report) => Ok(report),
        other @ (Sent::Hello(_) | Sent::Ack(_) | Sent::Nack(_)) => {
            anyhow::bail!("no report: {other:?}")
        }
    }
}

fn ports(list: &[ringfence_proto::v1::Endpoint]) -> Vec<u32> {
    list.iter().map(|endpoint| endpoint.port).collect()
}

#[tokio::test]
async fn a_controller_that_takes_endpoints_gets_a_snapshot_then_changes() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("sock");
    let mut controller = Controller::listen(&path)?;
    let agent = Agent::on_socket(&path, None)?;
    drop(agent.endpoints.send_replace(endpoints(&[80])));

    for round in 0..2 {
        let mut stream = controller.accept().await?;
        let _hello = stream.hello().await?;
        let takes = SyncResponse {
            max_endpoints: 10,
            ..snapshot(&web(1 + round))
        };
        assert_eq!(stream.ask(takes).await?, None);
        let first = report(&mut stream).await?;
        assert!(first.reset, "{round}");
        assert_eq!(ports(&first.added), [80], "{round}");

        drop(agent.endpoints.send_replace(endpoints(&[80, 443])));
        let change = report(&mut stream).await?;
        assert!(!change.reset);
        assert_eq!(
            (ports(&change.added), ports(&change.removed)),
            (vec![443], vec![])
        );
        // Policy goes on beside it.
        let next = SyncResponse {
            max_endpoints: 10,
            ..snapshot(&web(2 + round))
        };
        assert_eq!(stream.ask(next).await?, None);
        drop(agent.endpoints.send_replace(endpoints(&[80])));
        let change = report(&mut stream).await?;
        assert_eq!(
            (ports(&change.added), ports(&change.removed)),
            (vec![], vec![443])
        );
    }
    agent.stop().await?;
    controller.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_controller_that_takes_none_is_sent_none() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("sock");
    let mut controller = Controller::listen(&path)?;
    let agent = Agent::on_socket(&path, None)?;
    drop(agent.endpoints.send_replace(endpoints(&[80])));
    let mut stream = controller.accept().await?;
    let _hello = stream.hello().await?;
    for generation in 1..=3 {
        // Each answer is the next message: no report is in between.
        assert_eq!(stream.ask(snapshot(&web(generation))).await?, None);
    }
    agent.stop().await?;
    controller.stop().await;
    Ok(())
}
