//! `ringfence policy list`.

use std::path::Path;

use ringfence_proto::v1;
use serde_json::Value;

use super::{CliError, apply, args::Format, client, json, note, output::Output, words};

/// Names in one cell at most.
const NAMES: usize = 3;

pub(super) async fn policies(socket: &Path, output: &mut Output) -> Result<(), CliError> {
    let mut client = client::connect(socket).await?;
    let answer = client
        .list_policies(v1::ListPoliciesRequest {})
        .await?
        .into_inner();
    let status = client.get_status(v1::GetStatusRequest {}).await?;
    if let Some(change) = &status.into_inner().pending_change {
        // Beside the list, which has one form whatever is pending.
        note(&format!(
            "on trial: {}; rolled back in {} s unless you run `ringfence policy confirm`",
            apply::names(change),
            change.seconds_left
        ));
    }
    if output.format_or(Format::Table) == Format::Json {
        return output.json(&answer.policies.iter().map(json::policy).collect::<Value>());
    }
    let rows = answer.policies.iter().map(|policy| {
        vec![
            words::clean(&policy.name),
            words::clean(&policy.mode),
            words::labels(&policy.applies_to),
            some(&policy.workloads),
            policy.rules.to_string(),
            words::time(policy.not_after.as_ref()),
            words::clean(&policy.location),
        ]
    });
    let header = [
        "NAME",
        "MODE",
        "APPLIES-TO",
        "WORKLOADS",
        "RULES",
        "NOT-AFTER",
        "LOCATION",
    ];
    output.table(&header, rows.collect())
}

/// The first names, and how many more there are.
pub(super) fn some(names: &[String]) -> String {
    let shown: Vec<String> = names
        .iter()
        .take(NAMES)
        .map(|name| words::clean(name))
        .collect();
    let more = names.len() - shown.len();
    let text = shown.join(",");
    if more == 0 {
        text
    } else {
        format!("{text},+{more}")
    }
}
