//! `agents`: who is connected, runs what and refused what.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use comfy_table::{Table, presets};
use hyper_util::rt::TokioIo;
use prost_types::Timestamp;
use ringfence_proto::v1::{
    ListAgentsRequest, ListAgentsResponse, controller_client::ControllerClient,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::net::UnixStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::{config::DEFAULT_LISTEN, serve::causes};

const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address of the controller: `unix:/PATH`, `http://127.0.0.1:PORT` or `https://HOST:PORT`
    #[arg(long, default_value = DEFAULT_LISTEN)]
    endpoint: String,
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
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Table,
    Json,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let channel = connect(&args).await?;
    let response = ControllerClient::new(channel)
        .max_decoding_message_size(usize::MAX)
        .list_agents(ListAgentsRequest {})
        .await
        .with_context(|| format!("the controller at {} refused to answer", args.endpoint))?
        .into_inner();
    let text = match args.output {
        Output::Table => table(&response),
        Output::Json => json(&response)?,
    };
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

async fn connect(args: &Args) -> Result<Channel> {
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

fn table(response: &ListAgentsResponse) -> String {
    let mut table = Table::new();
    let _table = table.load_preset(presets::NOTHING).set_header([
        "HOST", "VERSION", "STATE", "SENT", "APPLIED", "SEEN", "ERROR",
    ]);
    for agent in &response.agents {
        let state = if agent.connected { "connected" } else { "away" };
        let _table = table.add_row([
            agent.host.clone(),
            agent.version.clone(),
            state.to_owned(),
            agent.sent.to_string(),
            agent.applied.to_string(),
            seen(agent.seen.as_ref()),
            agent.error.clone(),
        ]);
    }
    let mut text = format!("generation {}\n", response.generation);
    if !response.store_error.is_empty() {
        text += "the policy directory is refused:\n";
        text += &response.store_error;
        text.push('\n');
    }
    text + &table.to_string()
}

fn json(response: &ListAgentsResponse) -> Result<String> {
    let agents: Vec<_> = response
        .agents
        .iter()
        .map(|agent| {
            serde_json::json!({
                "host": agent.host,
                "version": agent.version,
                "connected": agent.connected,
                "sent": agent.sent,
                "applied": agent.applied,
                "error": agent.error,
                "seen": seen(agent.seen.as_ref()),
            })
        })
        .collect();
    let value = serde_json::json!({
        "generation": response.generation,
        "store_error": response.store_error,
        "agents": agents,
    });
    Ok(serde_json::to_string_pretty(&value)?)
}

fn seen(time: Option<&Timestamp>) -> String {
    time.and_then(|time| OffsetDateTime::from_unix_timestamp(time.seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}
