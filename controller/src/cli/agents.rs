//! `agents`: who is connected, runs what and refused what.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use comfy_table::{Table, presets};
use prost_types::Timestamp;
use ringfence_proto::{
    text,
    v1::{ListAgentsRequest, ListAgentsResponse, controller_client::ControllerClient},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::connect::{Output, Place, connect};

pub(super) async fn run(args: Place) -> Result<()> {
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

fn table(response: &ListAgentsResponse) -> String {
    let mut table = Table::new();
    let _table = table.load_preset(presets::NOTHING).set_header([
        "HOST",
        "VERSION",
        "STATE",
        "SENT",
        "APPLIED",
        "ENDPOINTS",
        "SEEN",
        "ERROR",
    ]);
    for agent in &response.agents {
        let state = if agent.connected { "connected" } else { "away" };
        let _table = table.add_row([
            text::clean(&agent.host),
            text::clean(&agent.version),
            state.to_owned(),
            agent.sent.to_string(),
            agent.applied.to_string(),
            agent.endpoints.to_string(),
            seen(agent.seen.as_ref()),
            text::clean_lines(&agent.error),
        ]);
    }
    let mut out = format!("generation {}\n", response.generation);
    if !response.store_error.is_empty() {
        out += "the policy directory is refused:\n";
        out += &text::clean_lines(&response.store_error);
        out.push('\n');
    }
    out + &table.to_string()
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
                "endpoints": agent.endpoints,
            })
        })
        .collect();
    let value = serde_json::json!({
        "generation": response.generation,
        "store_error": response.store_error,
        "agents": agents,
    });
    Ok(text::escape_json(&serde_json::to_string_pretty(&value)?))
}

fn seen(time: Option<&Timestamp>) -> String {
    time.and_then(|time| OffsetDateTime::from_unix_timestamp(time.seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}
