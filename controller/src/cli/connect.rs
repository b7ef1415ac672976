//! The way to a controller, for the commands that ask one.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use hyper_util::rt::TokioIo;
use ringfence_proto::text::causes;
use tokio::net::UnixStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::config::DEFAULT_LISTEN;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Which controller is asked, and how its answer is written.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    /// Address of the controller: `unix:/PATH`, `http://127.0.0.1:PORT` or `https://HOST:PORT`
    #[arg(long, default_value = DEFAULT_LISTEN)]
    pub(super) endpoint: String,
    /// Certificates that the controller's must lead to (https)
    #[arg(long, requires_all = ["cert", "key"])]
    ca: Option<PathBuf>,
    /// Own certificate (https)
    #[arg(long, requires_all = ["ca", "key"])]
    cert: Option<PathBuf>,
    /// Its private key (https)
    #[arg(long, requires_all = ["ca", "cert"])]
    key: Option<PathBuf>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Output {
    Table,
    Json,
}

/// Connects to it.
pub(super) async fn connect(args: &Place) -> Result<Channel> {
    let context = |error: tonic::transport::Error| {
        anyhow::anyhow!(
            "no controller answers at {} ({}); is it running, and is --endpoint right?",
            args.endpoint,
            causes(&error)
        )
    };
    if let Some(path) = args.endpoint.strip_prefix("unix:") {
        let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost").timeout(TIMEOUT);
        return endpoint
            .connect_with_connector(connector)
            .await
            .map_err(context);
    }
    let mut endpoint = Endpoint::from_shared(args.endpoint.clone())
        .context("--endpoint is not an address")?
        .connect_timeout(TIMEOUT)
        .timeout(TIMEOUT);
    match (&args.ca, &args.cert, &args.key) {
        (Some(ca), Some(cert), Some(key)) => {
            let tls = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(read(ca)?))
                .identity(Identity::from_pem(read(cert)?, read(key)?));
            endpoint = endpoint
                .tls_config(tls)
                .context("the certificates are unusable")?;
        }
        _ if args.endpoint.starts_with("https:") => bail!("https needs --ca, --cert and --key"),
        _ => {}
    }
    endpoint.connect().await.map_err(context)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
