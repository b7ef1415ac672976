//! `ringfence explain --pid`: which identity a process has, and why.

use std::path::Path;

use ringfence_proto::v1;

use super::{
    CliError,
    args::{ExplainArgs, Format},
    client,
    explain::{self, verdict},
    inventory::{executable, sockets, user},
    json,
    output::{Colour, Output, columns},
    words,
};

pub(super) async fn run(
    socket: &Path,
    pid: u32,
    args: &ExplainArgs,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut client = client::connect(socket).await?;
    let request = v1::ExplainProcessRequest {
        pid,
        to: args.to.clone().unwrap_or_default(),
        protocol: args.protocol.clone(),
        port: args.port.unwrap_or_default().into(),
    };
    let answer = client.explain_process(request).await?.into_inner();
    if output.format_or(Format::Table) == Format::Json {
        output.json(&json::process(&answer))?;
    } else {
        write(args, &answer, output)?;
    }
    output.flush()?;
    answer.flow.as_ref().map_or(Ok(()), verdict)
}

fn write(
    args: &ExplainArgs,
    answer: &v1::ExplainProcessResponse,
    output: &mut Output,
) -> Result<(), CliError> {
    let process = answer.process.clone().unwrap_or_default();
    let name = words::clean(&process.workload);
    let headline = output.style.paint(Colour::Good, &name);
    let (command, reason) = (words::clean(&process.command), words::clean(&answer.reason));
    output.line(&format!(
        "{} {command} is {headline} ({}): {reason}",
        process.pid, process.identity
    ))?;
    if output.format_or(Format::Table) == Format::Table {
        facts(&process, answer, output)?;
        candidates(answer, output)?;
        explain::notes(&answer.notes, output)?;
    }
    let Some(flow) = &answer.flow else {
        return Ok(());
    };
    if output.format_or(Format::Table) == Format::Table {
        output.line("")?;
    }
    explain::write(&process.workload, args, flow, output)
}

fn facts(
    process: &v1::LiveProcess,
    answer: &v1::ExplainProcessResponse,
    output: &mut Output,
) -> Result<(), CliError> {
    let rows = [
        ("Executable:", executable(process)),
        ("", words::clean(&answer.executable_note)),
        ("User:", user(process)),
        ("Cgroup:", words::clean(&process.cgroup)),
        ("Sockets:", sockets(process)),
    ];
    let shown = rows
        .into_iter()
        .filter(|(key, value)| !(key.is_empty() && value.is_empty()));
    let shown = shown.map(|(key, value)| {
        // An empty cell would show as `-`.
        let key = if key.is_empty() { " " } else { key };
        vec![key.to_owned(), value]
    });
    output.line(&columns(None, shown.collect()))
}

fn candidates(answer: &v1::ExplainProcessResponse, output: &mut Output) -> Result<(), CliError> {
    for candidate in &answer.candidates {
        let name = words::clean(&candidate.workload);
        let location = words::clean(&candidate.location);
        let how = match (candidate.matched, candidate.criterion.as_str()) {
            (false, _) => output.style.paint(Colour::Warning, "nearly matches"),
            (true, "") => output.style.paint(Colour::Good, "matches"),
            (true, why) => format!("matches, less specific ({})", words::clean(why)),
        };
        output.line(&format!("\n{name} {how}, {location}"))?;
        for check in &candidate.selectors {
            let (key, wanted) = (words::clean(&check.key), words::clean(&check.wanted));
            let line = if check.matched {
                format!("  yes  {key} = {wanted}")
            } else {
                let found = words::clean(&check.found);
                let text = format!("  no   {key} = {wanted}, found {found}");
                output.style.paint(Colour::Bad, &text)
            };
            output.line(&line)?;
        }
    }
    if answer.more_candidates > 0 {
        let more = answer.more_candidates;
        output.line(&format!("\n{more} more workloads are not shown"))?;
    }
    Ok(())
}
