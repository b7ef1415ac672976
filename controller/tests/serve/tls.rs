//! Mutual TLS on TCP.

use std::{
    fs, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ringfence_controller::listen::tls::{MAX_HANDSHAKES, acceptor};
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tonic::{
    Code,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::{Agent, Listen, Running, Tls, config, directory};

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

async fn start(ca: &Authority, verify_host: bool) -> Result<Running> {
    let dir = directory()?;
    let mut config = config(&dir, 8);
    let path = |name: &str| dir.path().join(name);
    let tls = Tls {
        cert: path("cert.pem"),
        key: path("key.pem"),
        client_ca: path("ca.pem"),
        verify_host,
    };
    let (cert, key) = issue(ca, "localhost")?;
    fs::write(&tls.cert, cert)?;
    fs::write(&tls.key, key)?;
    fs::write(&tls.client_ca, ca.pem())?;
    config.tls = Some(tls);
    config.listen.push(Listen::Tcp("127.0.0.1:0".parse()?));
    Running::start_with(dir, &config, &[("a.toml", "")]).await
}

async fn connect(
    controller: &Running,
    ca: &Authority,
    identity: Option<(String, String)>,
) -> Result<Channel> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca.pem()));
    if let Some((cert, key)) = identity {
        tls = tls.identity(Identity::from_pem(cert, key));
    }
    let port = controller.port.context("a TCP address")?;
    let endpoint = Endpoint::from_shared(format!("https://localhost:{port}"))?;
    Ok(endpoint.tls_config(tls)?.connect().await?)
}

#[tokio::test]
async fn an_agent_speaks_for_the_host_of_its_certificate() -> Result<()> {
    let ca = authority()?;
    let controller = start(&ca, true).await?;
    let identity = issue(&ca, "host-1")?;
    let channel = connect(&controller, &ca, Some(identity.clone())).await?;
    let mut agent = Agent::connect(channel.clone(), "host-1").await?;
    let _first = agent.snapshot().await?;
    let mut liar = Agent::connect(channel, "host-2").await?;
    let status = liar.end().await?;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("verify-host"));
    controller.stop().await?;

    let controller = start(&ca, false).await?;
    let channel = connect(&controller, &ca, Some(identity)).await?;
    let mut agent = Agent::connect(channel, "host-2").await?;
    let _first = agent.snapshot().await?;
    controller.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_handshakes_that_never_end_locks_no_agent_out() -> Result<()> {
    let ca = authority()?;
    let controller = start(&ca, true).await?;
    let port = controller.port.context("a TCP address")?;
    let identity = issue(&ca, "host-1")?;
    let channel = connect(&controller, &ca, Some(identity.clone())).await?;
    let mut before = Agent::connect(channel, "host-1").await?;
    let _first = before.snapshot().await?;
    let mut flood = Vec::new();
    for round in 0..MAX_HANDSHAKES + 100 {
        flood.push(TcpStream::connect(("127.0.0.1", port)).await?);
        if round % 200 == 199 {
            let channel = connect(&controller, &ca, Some(identity.clone())).await?;
            let mut agent = Agent::connect(channel, "host-1").await?;
            let _first = agent.snapshot().await?;
        }
    }
    // The oldest had to go, long before its time was over.
    let mut oldest = flood.swap_remove(0);
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_secs(5), oldest.read(&mut byte)).await;
    ensure!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
    let channel = connect(&controller, &ca, Some(identity)).await?;
    let mut agent = Agent::connect(channel, "host-1").await?;
    let _first = agent.snapshot().await?;
    controller.stop().await
}

#[tokio::test]
async fn files_that_are_no_certificates_are_named() -> Result<()> {
    let ca = authority()?;
    let (cert, key) = issue(&ca, "localhost")?;
    let (_, other_key) = issue(&ca, "localhost")?;
    for (file, text, told) in [
        ("ca.pem", "", "ca.pem: no certificate"),
        ("cert.pem", "junk", "cert.pem: no certificate"),
        ("key.pem", "junk", "key.pem"),
        ("key.pem", other_key.as_str(), "unusable"),
    ] {
        let dir = directory()?;
        let path = |name: &str| dir.path().join(name);
        for (name, text) in [
            ("ca.pem", &ca.pem()),
            ("cert.pem", &cert),
            ("key.pem", &key),
        ] {
            fs::write(path(name), text)?;
        }
        fs::write(path(file), text)?;
        let tls = Tls {
            cert: path("cert.pem"),
            key: path("key.pem"),
            client_ca: path("ca.pem"),
            verify_host: true,
        };
        let Err(error) = acceptor(&tls) else {
            bail!("{file} was accepted");
        };
        assert!(error.to_string().contains(told), "{error}");
    }
    Ok(())
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_handshake_that_fails_is_logged_and_not_once_for_each() -> Result<()> {
    let log = Log::default();
    let writer = log.clone();
    let logging = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(logging);
    let (ca, other) = (authority()?, authority()?);
    let controller = start(&ca, true).await?;
    for _ in 0..20 {
        let identity = issue(&other, "host-1")?;
        if let Ok(channel) = connect(&controller, &ca, Some(identity)).await
            && let Ok(mut agent) = Agent::connect(channel, "host-1").await
        {
            assert!(agent.receive().await.is_err());
        }
    }
    // Served after all of those.
    let channel = connect(&controller, &ca, Some(issue(&ca, "host-1")?)).await?;
    let _first = Agent::connect(channel, "host-1").await?.snapshot().await?;
    controller.stop().await?;
    let text = log.text();
    let told = text.matches("TLS handshake failed").count();
    assert!((1..20).contains(&told), "{told}: {text}");
    assert!(text.contains("invalid peer certificate"), "{text}");
    assert!(!text.contains("127.0.0.1"), "{text}");
    Ok(())
}

#[tokio::test]
async fn nobody_else_is_served() -> Result<()> {
    let (ca, other) = (authority()?, authority()?);
    let controller = start(&ca, true).await?;
    for identity in [None, Some(issue(&other, "host-1")?)] {
        // TLS 1.3 tells the client after it thinks that it is connected.
        let Ok(channel) = connect(&controller, &ca, identity).await else {
            continue;
        };
        let Ok(mut agent) = Agent::connect(channel, "host-1").await else {
            continue;
        };
        assert!(agent.receive().await.is_err());
    }
    assert!(controller.list().await?.agents.is_empty());
    controller.stop().await
}
