//! `ringfence status`: is the host guarded, by what, and what was lost.

use std::path::Path;

use ringfence_proto::v1;

use super::{
    CliError, apply,
    args::Format,
    client, json,
    output::{Colour, Output, columns},
    words,
};

pub(super) async fn run(socket: &Path, output: &mut Output) -> Result<(), CliError> {
    let mut client = client::connect(socket).await?;
    let status = client
        .get_status(v1::GetStatusRequest {})
        .await?
        .into_inner();
    match output.format_or(Format::Table) {
        Format::Json => output.json(&json::status(&status, &headline(&status).1))?,
        Format::Compact => title(&status, output)?,
        Format::Table => table(&status, output)?,
    }
    if is_guarded(&status) {
        return Ok(());
    }
    output.flush()?;
    Err(CliError::NotGuarded)
}

fn is_guarded(status: &v1::GetStatusResponse) -> bool {
    !status.hooks.is_empty() && status.hooks.iter().all(|hook| hook.attached)
}

fn title(status: &v1::GetStatusResponse, output: &mut Output) -> Result<(), CliError> {
    let (colour, text) = headline(status);
    let text = output.style.paint(colour, &text);
    output.line(&text)
}

/// Whether traffic is judged, by what, and what happens to what is denied.
fn headline(status: &v1::GetStatusResponse) -> (Colour, String) {
    if !is_guarded(status) {
        let missing = status.hooks.iter().filter(|hook| !hook.attached).count();
        let text = format!(
            "NOT GUARDED: {missing} of {} programs are not attached",
            status.hooks.len()
        );
        return (Colour::Bad, text);
    }
    let (mut colour, mut text) = match status.mode.as_str() {
        "enforce" if status.restricted > 0 => (Colour::Good, "ENFORCING".to_owned()),
        "enforce" if status.policies == 0 => {
            let text = "NO POLICY: nothing is restricted";
            (Colour::Warning, text.to_owned())
        }
        "enforce" => {
            let text = "NOTHING RESTRICTED: no enforced policy selects a workload";
            (Colour::Warning, text.to_owned())
        }
        mode => {
            let text = format!("{}: nothing is blocked", words::clean(mode).to_uppercase());
            (Colour::Warning, text)
        }
    };
    if let Some(change) = &status.pending_change {
        colour = Colour::Warning;
        let left = change.seconds_left;
        text = format!("{text} (change on trial: rolled back in {left} s unless confirmed)");
    }
    if !status.policy_error.is_empty() {
        colour = Colour::Bad;
        text += " (newest policy refused)";
    }
    (colour, text)
}

fn table(status: &v1::GetStatusResponse, output: &mut Output) -> Result<(), CliError> {
    title(status, output)?;
    let mut rows = vec![
        pair("Version", &status.version),
        pair("Started", &words::time(status.started.as_ref())),
        pair("Guarded", &status.cgroup_root),
        pair(
            "Generation",
            &format!("{} from {}", status.generation, status.policy_source),
        ),
        pair("Applied", &words::time(status.applied.as_ref())),
        pair("Workloads", &status.workloads.to_string()),
        pair("Restricted", &status.restricted.to_string()),
        pair("Policies", &status.policies.to_string()),
        pair("Live flows", &status.live_flows.to_string()),
    ];
    if !status.controller_state.is_empty() {
        let text = format!(
            "{}, {}, generation {}",
            status.controller_state, status.controller_endpoint, status.controller_generation
        );
        rows.push(pair("Controller", &text));
    }
    if let Some(change) = &status.pending_change {
        let text = format!(
            "{}; by user {} at {}",
            apply::names(change),
            change.uid,
            words::time(change.applied.as_ref())
        );
        rows.push(pair("On trial", &text));
    }
    output.line(&columns(None, rows))?;
    reasons("Policy refused", &status.policy_error, output)?;
    reasons("Controller", &status.controller_error, output)?;
    hooks(status, output)?;
    features(status, output)?;
    counts(status, output)?;
    for warning in &status.warnings {
        let text = format!("Warning: {}", words::clean(warning));
        let text = output.style.paint(Colour::Warning, &text);
        output.line(&format!("\n{text}"))?;
    }
    Ok(())
}

/// What is wrong, one reason a line.
fn reasons(what: &str, text: &str, output: &mut Output) -> Result<(), CliError> {
    if text.is_empty() {
        return Ok(());
    }
    let title = output.style.paint(Colour::Bad, &format!("{what}:"));
    output.line(&format!("\n{title}"))?;
    for line in text.lines() {
        output.line(&format!("  {}", words::clean(line)))?;
    }
    Ok(())
}

fn hooks(status: &v1::GetStatusResponse, output: &mut Output) -> Result<(), CliError> {
    if status.hooks.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let rows = status.hooks.iter().map(|hook| {
        vec![
            words::clean(&hook.name),
            if hook.attached { "attached" } else { "missing" }.to_owned(),
            hook.program_id.to_string(),
            hook.link_id.to_string(),
        ]
    });
    output.table(&["HOOK", "STATE", "PROGRAM", "LINK"], rows.collect())
}

fn features(status: &v1::GetStatusResponse, output: &mut Output) -> Result<(), CliError> {
    if status.features.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let rows = status.features.iter().map(|feature| {
        let state = match (feature.present, feature.required) {
            (true, _) => "present",
            (false, true) => "MISSING",
            (false, false) => "absent",
        };
        vec![
            words::clean(&feature.name),
            state.to_owned(),
            words::clean(&feature.note),
        ]
    });
    output.table(&["FEATURE", "STATE", "NOTE"], rows.collect())
}

/// Only what has happened.
fn counts(status: &v1::GetStatusResponse, output: &mut Output) -> Result<(), CliError> {
    let mut rows: Vec<Vec<String>> = status
        .counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(name, count)| vec![words::clean(name), count.to_string()])
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    rows.sort();
    output.line("")?;
    output.table(&["COUNT", "VALUE"], rows)
}

fn pair(name: &str, value: &str) -> Vec<String> {
    vec![format!("{name}:"), words::clean(value)]
}
