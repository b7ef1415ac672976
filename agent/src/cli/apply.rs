//! `ringfence policy apply`, `confirm` and `rollback`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use ringfence_documents::Naming;
use ringfence_proto::{
    limits,
    text::counted,
    v1::{self, apply_request::Request, policy_change_client::PolicyChangeClient},
};
use serde_json::{Value, json};

use super::{
    CliError,
    args::{ApplyArgs, Format},
    client, json, note,
    output::{Colour, Output},
    words,
};

/// How long the agent may take for a large policy.
const ANSWER: Duration = Duration::from_secs(100);

/// Texts by the names of their files.
type Files = BTreeMap<String, String>;

/// Puts documents into force, or tells what that would do.
pub(super) async fn apply(
    socket: &Path,
    args: &ApplyArgs,
    output: &mut Output,
) -> Result<(), CliError> {
    let files = files(&args.paths)?;
    let options = v1::ApplyOptions {
        confirm_seconds: args.confirm.map_or(0, |time| time.0),
        dry_run: args.dry_run,
        prune: args.prune,
    };
    let channel = client::channel(socket, ANSWER).await?;
    let messages = tokio_stream::iter(messages(options, files));
    let answer = PolicyChangeClient::new(channel).apply(messages).await?;
    let answer = answer.into_inner();
    if output.format_or(Format::Table) == Format::Json {
        output.json(&value(&answer))?;
    } else {
        write(&answer, output)?;
    }
    output.flush()?;
    let cuts = answer.preview.as_ref().is_some_and(|preview| {
        !preview.cut_flows.is_empty() || !preview.refused_listeners.is_empty()
    });
    if cuts { Err(CliError::Cuts) } else { Ok(()) }
}

/// Keeps the change on trial.
pub(super) async fn confirm(socket: &Path, output: &mut Output) -> Result<(), CliError> {
    let channel = client::channel(socket, ANSWER).await?;
    let mut client = PolicyChangeClient::new(channel);
    let answer = client.confirm(v1::ConfirmRequest {}).await?.into_inner();
    let change = answer.change.unwrap_or_default();
    done("Confirmed", &change, output)
}

/// Ends the trial with the former policy.
pub(super) async fn rollback(socket: &Path, output: &mut Output) -> Result<(), CliError> {
    let channel = client::channel(socket, ANSWER).await?;
    let mut client = PolicyChangeClient::new(channel);
    let answer = client.rollback(v1::RollbackRequest {}).await?.into_inner();
    let change = answer.change.unwrap_or_default();
    done("Rolled back", &change, output)
}

/// What a change is about, as in `web.toml, -old.toml`.
pub(super) fn names(change: &v1::PendingChange) -> String {
    let removed = change.removed.iter().map(|name| format!("-{name}"));
    let all: Vec<String> = change.changed.iter().cloned().chain(removed).collect();
    words::clean(&all.join(", "))
}

fn done(what: &str, change: &v1::PendingChange, output: &mut Output) -> Result<(), CliError> {
    if output.format_or(Format::Table) == Format::Json {
        return output.json(&json!({ "change": json::change(change) }));
    }
    output.line(&format!("{what}: {}", names(change)))
}

/// The documents named, and those of the directories named, by the names of their files.
fn files(paths: &[PathBuf]) -> Result<Files, CliError> {
    let mut files = Files::new();
    for path in paths {
        let documents = if path.is_dir() {
            ringfence_documents::read(path, Naming::Path)?
        } else {
            vec![ringfence_documents::read_file(path)?]
        };
        for document in documents {
            let name = Path::new(&document.name).file_name();
            let name = name.map(|name| name.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            let before = files.insert(name.clone(), document.text.to_string());
            if before.is_some_and(|before| *before != *document.text) {
                return Err(CliError::Usage(format!(
                    "{name} is there twice, with different texts; the policy directory holds one file of a name"
                )));
            }
        }
    }
    Ok(files)
}

fn messages(options: v1::ApplyOptions, files: Files) -> Vec<v1::ApplyRequest> {
    let message = |request| v1::ApplyRequest {
        request: Some(request),
    };
    let mut messages = vec![message(Request::Options(options))];
    for (name, text) in files {
        // An empty document is one piece too.
        let pieces = text.as_bytes().chunks(limits::MAX_PIECE_BYTES);
        let empty = text.is_empty().then_some(&[][..]);
        messages.extend(pieces.chain(empty).map(|piece| {
            message(Request::Piece(v1::DocumentPiece {
                name: name.clone(),
                text: piece.to_vec(),
            }))
        }));
    }
    messages
}

fn write(answer: &v1::ApplyResponse, output: &mut Output) -> Result<(), CliError> {
    for warning in &answer.warnings {
        note(&format!("warning: {warning}"));
    }
    if let Some(preview) = &answer.preview {
        return foreseen(preview, output);
    }
    let generation = answer.generation;
    if answer.unchanged {
        return output.line(&format!(
            "Unchanged: generation {generation} holds these documents already"
        ));
    }
    let Some(pending) = &answer.pending else {
        return output.line(&format!("In force: generation {generation}"));
    };
    output.line(&format!(
        "On trial: generation {generation} ({}) is rolled back in {} s unless you run `ringfence policy confirm`",
        names(pending),
        pending.seconds_left
    ))
}

fn foreseen(preview: &v1::Preview, output: &mut Output) -> Result<(), CliError> {
    output.line(&format!(
        "Valid: {}, {}, {}; nothing was changed",
        counted(size(preview.workloads), "workload", "workloads"),
        counted(size(preview.policies), "policy", "policies"),
        counted(size(preview.rules), "rule", "rules"),
    ))?;
    let cut = count(preview.cut_flows.len(), preview.more_cut_flows);
    let live = counted(size(preview.live_flows), "live flow", "live flows");
    headline(cut, &format!("{cut} of {live} would be cut"), output)?;
    if cut > 0 {
        output.table(
            &[
                "WORKLOAD", "PROCESS", "FLOW", "PEER", "REASON", "RULE", "LOCATION",
            ],
            preview.cut_flows.iter().map(cut_row).collect(),
        )?;
        more(preview.more_cut_flows, output)?;
    }
    let refused = count(
        preview.refused_listeners.len(),
        preview.more_refused_listeners,
    );
    let listeners = counted(size(refused), "listener", "listeners");
    let text = format!("{listeners} would be refused when bound again");
    headline(refused, &text, output)?;
    if refused > 0 {
        output.table(
            &["WORKLOAD", "LISTENER", "REASON", "RULE", "LOCATION"],
            preview.refused_listeners.iter().map(refused_row).collect(),
        )?;
        more(preview.more_refused_listeners, output)?;
    }
    for text in &preview.notes {
        output.line(&format!("Note: {}", words::clean(text)))?;
    }
    Ok(())
}

fn headline(number: u64, text: &str, output: &mut Output) -> Result<(), CliError> {
    let colour = if number > 0 {
        Colour::Bad
    } else {
        Colour::Good
    };
    let text = output.style.paint(colour, text);
    output.line(&text)
}

fn more(number: u64, output: &mut Output) -> Result<(), CliError> {
    if number == 0 {
        return Ok(());
    }
    output.line(&format!("… and {number} more"))
}

fn size(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}

fn count(shown: usize, more: u64) -> u64 {
    u64::try_from(shown)
        .unwrap_or(u64::MAX)
        .saturating_add(more)
}

fn cut_row(flow: &v1::CutFlow) -> Vec<String> {
    let local = end(&flow.local_address, flow.local_port);
    let remote = end(&flow.remote_address, flow.remote_port);
    let inbound = flow.direction == i32::from(v1::Direction::Ingress);
    let (from, to) = if inbound {
        (remote, local)
    } else {
        (local, remote)
    };
    let process = match flow.pid {
        0 => String::new(),
        pid => words::clean(&format!("{}[{pid}]", flow.command)),
    };
    let mut row = vec![
        words::clean(&flow.workload),
        process,
        format!(
            "{} {} {from} -> {to}",
            words::direction(flow.direction),
            words::protocol(flow.protocol)
        ),
        words::clean(&flow.peer),
    ];
    row.extend(decided(flow.decision.as_ref()));
    row
}

fn refused_row(listener: &v1::RefusedListener) -> Vec<String> {
    let address = end(&listener.address, listener.port);
    let mut row = vec![
        words::clean(&listener.workload),
        format!("{} {address}", words::protocol(listener.protocol)),
    ];
    row.extend(decided(listener.decision.as_ref()));
    row
}

fn end(address: &str, port: u32) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// Reason, rule and place.
fn decided(decision: Option<&v1::Decision>) -> [String; 3] {
    let rule = decision.and_then(|decision| decision.rule.as_ref());
    [
        words::clean(decision.map_or("", |decision| &decision.reason)),
        words::rule(rule),
        words::clean(rule.map_or("", |rule| &rule.location)),
    ]
}

fn value(answer: &v1::ApplyResponse) -> Value {
    let flow = |flow: &v1::CutFlow| {
        json!({
            "workload": flow.workload,
            "pid": flow.pid,
            "command": flow.command,
            "direction": words::direction(flow.direction),
            "protocol": words::protocol(flow.protocol),
            "local_address": flow.local_address,
            "local_port": flow.local_port,
            "remote_address": flow.remote_address,
            "remote_port": flow.remote_port,
            "peer": flow.peer,
            "decision": flow.decision.as_ref().map(json::decision),
        })
    };
    let listener = |listener: &v1::RefusedListener| {
        json!({
            "workload": listener.workload,
            "protocol": words::protocol(listener.protocol),
            "address": listener.address,
            "port": listener.port,
            "decision": listener.decision.as_ref().map(json::decision),
        })
    };
    let preview = answer.preview.as_ref().map(|preview| {
        json!({
            "workloads": preview.workloads,
            "policies": preview.policies,
            "rules": preview.rules,
            "live_flows": preview.live_flows,
            "cut_flows": preview.cut_flows.iter().map(flow).collect::<Vec<_>>(),
            "more_cut_flows": preview.more_cut_flows,
            "refused_listeners": preview.refused_listeners.iter().map(listener).collect::<Vec<_>>(),
            "more_refused_listeners": preview.more_refused_listeners,
            "notes": preview.notes,
        })
    });
    json!({
        "generation": answer.generation,
        "unchanged": answer.unchanged,
        "warnings": answer.warnings,
        "pending_change": answer.pending.as_ref().map(json::change),
        "preview": preview,
    })
}
