//! Mutual TLS: both ends must show a certificate of the other's authority.

use std::{fs, path::Path};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ringfence_proto::v1::policy_sync_server::PolicySyncServer;
use tokio::{net::TcpListener, sync::mpsc};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig, server::TcpIncoming};

use super::{
    super::{Tls, check},
    Agent, Controller, Endpoint, Phase, Service, Settings, snapshot, web,
};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Result<Authority> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn issue(authority: &Authority, name: &str) -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    let cert = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, authority)?;
    Ok((cert.pem(), key.serialize_pem()))
}

async fn listen(client_ca: &Authority, (cert, key): (String, String)) -> Result<(Controller, u16)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(cert, key))
        .client_ca_root(Certificate::from_pem(client_ca.pem()));
    let (sender, streams) = mpsc::channel(4);
    let task = tokio::spawn(
        Server::builder()
            .tls_config(tls)?
            .add_service(PolicySyncServer::new(Service(sender)))
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    Ok((Controller { streams, task }, port))
}

fn start(dir: &Path, port: u16, ca: &Authority, (cert, key): (String, String)) -> Result<Agent> {
    let tls = Tls {
        ca: dir.join("ca.pem"),
        cert: dir.join("agent.pem"),
        key: dir.join("agent.key"),
    };
    fs::write(&tls.ca, ca.pem())?;
    fs::write(&tls.cert, cert)?;
    fs::write(&tls.key, key)?;
    let endpoint = Endpoint::parse(&format!("https://localhost:{port}"))?;
    let settings = Settings::new(vec![endpoint], Some(tls), "host-1".into(), "0".into())?;
    Ok(Agent::start(settings, None, 0))
}

#[tokio::test]
async fn certificates_of_the_right_authority_connect() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ca = authority()?;
    let (mut controller, port) = listen(&ca, issue(&ca, "localhost")?).await?;
    let mut agent = start(dir.path(), port, &ca, issue(&ca, "host-1")?)?;
    let mut stream = controller.accept().await?;
    assert_eq!(stream.hello().await?.host, "host-1");
    assert_eq!(stream.ask(snapshot(&web(1))).await?, None);
    assert_eq!(agent.applied().await?, web(1));
    agent.stop().await?;
    controller.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_certificate_of_another_authority_or_name_does_not() -> Result<()> {
    let (ca, other) = (authority()?, authority()?);
    let cases = [
        // The controller's certificate is another authority's.
        (issue(&other, "localhost")?, issue(&ca, "host-1")?),
        // The controller's certificate is for another name.
        (issue(&ca, "elsewhere")?, issue(&ca, "host-1")?),
        // The agent's certificate is another authority's.
        (issue(&ca, "localhost")?, issue(&other, "host-1")?),
    ];
    let told = [
        "certificate: BadSignature",
        "not valid for name",
        "`client-ca`",
    ];
    for ((server, client), told) in cases.into_iter().zip(told) {
        let dir = tempfile::tempdir()?;
        let (mut controller, port) = listen(&ca, server).await?;
        let mut agent = start(dir.path(), port, &ca, client)?;
        let state = agent.state(|state| state.last_error.is_some()).await?;
        assert_eq!(state.phase, Phase::Connecting);
        let error = state.last_error.unwrap_or_default();
        assert!(error.contains(told), "{told}: {error}");
        assert!(controller.streams.try_recv().is_err());
        agent.stop().await?;
        controller.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn plain_http_to_a_port_with_tls_is_told() -> Result<()> {
    let ca = authority()?;
    let (controller, port) = listen(&ca, issue(&ca, "localhost")?).await?;
    let endpoint = Endpoint::parse(&format!("http://localhost:{port}"))?;
    let settings = Settings::new(vec![endpoint], None, "host-1".into(), "0".into())?;
    let mut agent = Agent::start(settings, None, 0);
    let state = agent.state(|state| state.last_error.is_some()).await?;
    let error = state.last_error.unwrap_or_default();
    assert!(error.contains("write https://"), "{error}");
    agent.stop().await?;
    controller.stop().await;
    Ok(())
}

#[tokio::test]
async fn files_that_are_no_certificates_are_found_without_a_connection() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (ca, other) = (authority()?, authority()?);
    let file = |name: &str| dir.path().join(name);
    let tls = Tls {
        ca: file("ca.pem"),
        cert: file("agent.pem"),
        key: file("agent.key"),
    };
    let (cert, key) = issue(&ca, "host-1")?;
    let (_, other_key) = issue(&other, "host-1")?;
    let endpoint = Endpoint::parse("https://localhost:1")?;
    let settings = Settings::new(vec![endpoint], Some(tls), "host-1".into(), "0".into())?;
    let good = [
        ("ca.pem", ca.pem()),
        ("agent.pem", cert),
        ("agent.key", key),
    ];
    for (name, text) in &good {
        fs::write(file(name), text)?;
    }
    assert_eq!(check(&settings).await, Ok(()));
    for (name, text, told) in [
        ("ca.pem", "", "ca.pem holds no certificate"),
        ("agent.pem", "junk", "agent.pem holds no certificate"),
        ("agent.key", "junk", "unusable"),
        ("agent.key", other_key.as_str(), "unusable"),
    ] {
        fs::write(file(name), text)?;
        let error = check(&settings).await.err().unwrap_or_default();
        assert!(error.contains(told), "{told}: {error}");
        for (name, text) in &good {
            fs::write(file(name), text)?;
        }
    }
    fs::remove_file(file("ca.pem"))?;
    let error = check(&settings).await.err().unwrap_or_default();
    assert!(
        error.contains("ca.pem") && error.contains("[controller]"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn a_missing_key_file_is_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ca = authority()?;
    let mut agent = start(dir.path(), 1, &ca, issue(&ca, "host-1")?)?;
    fs::remove_file(dir.path().join("agent.key"))?;
    let state = agent.state(|state| state.last_error.is_some()).await?;
    let error = state.last_error.unwrap_or_default();
    // The first attempt may have read the file before it was removed.
    let error = if error.contains("agent.key") {
        error
    } else {
        agent
            .state(|state| {
                state
                    .last_error
                    .as_deref()
                    .is_some_and(|error| error.contains("agent.key"))
            })
            .await?
            .last_error
            .unwrap_or_default()
    };
    assert!(error.contains("[controller]"), "{error}");
    agent.stop().await
}
