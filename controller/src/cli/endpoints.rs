//! `endpoints`: where workloads listen, host by host.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use comfy_table::{Table, presets};
use ringfence_proto::{
    text,
    v1::{Endpoint, ListAgentEndpointsRequest, controller_client::ControllerClient},
};

use super::connect::{Output, Place, connect};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    /// Only of this host
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Only of this workload
    #[arg(long, value_name = "NAME")]
    workload: Vec<String>,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let request = ListAgentEndpointsRequest {
        host: args.host,
        workload: args.workload,
    };
    let context = || {
        format!(
            "the controller at {} refused to answer",
            args.place.endpoint
        )
    };
    let mut stream = ControllerClient::new(connect(&args.place).await?)
        .list_agent_endpoints(request)
        .await
        .with_context(context)?
        .into_inner();
    let mut found: Vec<(String, Endpoint)> = Vec::new();
    let mut notes = Vec::new();
    while let Some(message) = stream.message().await.with_context(context)? {
        if message.omitted > 0 {
            notes.push(format!(
                "{} endpoints of {} are not reported: there are too many",
                message.omitted,
                text::clean(&message.host)
            ));
        }
        let host = message.host;
        found.extend(message.endpoints.into_iter().map(|it| (host.clone(), it)));
    }
    let output = match args.place.output {
        Output::Table => table(&found),
        Output::Json => json(&found)?,
    };
    writeln!(io::stdout(), "{output}")?;
    for note in notes {
        writeln!(io::stderr(), "{note}")?;
    }
    Ok(())
}

fn table(found: &[(String, Endpoint)]) -> String {
    let mut table = Table::new();
    let _table = table.load_preset(presets::NOTHING).set_header([
        "HOST",
        "WORKLOAD",
        "IDENTITY",
        "LISTENS ON",
        "NAMESPACE",
    ]);
    for (host, endpoint) in found {
        let _table = table.add_row([
            text::clean(host),
            text::clean(&endpoint.workload),
            endpoint.identity.to_string(),
            text::listening(endpoint),
            endpoint.namespace.to_string(),
        ]);
    }
    table.to_string()
}

fn json(found: &[(String, Endpoint)]) -> Result<String> {
    let values = found.iter().map(|(host, endpoint)| {
        serde_json::json!({
            "host": host,
            "workload": endpoint.workload,
            "identity": endpoint.identity,
            "protocol": endpoint.protocol,
            "address": text::address(&endpoint.address),
            "port": endpoint.port,
            "dual_stack": endpoint.dual_stack,
            "namespace": endpoint.namespace,
            "device": endpoint.device,
        })
    });
    let value = values.collect::<serde_json::Value>();
    Ok(text::escape_json(&serde_json::to_string_pretty(&value)?))
}
