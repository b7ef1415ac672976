//! `ringfence explain`: what both ends would decide about a flow.

use std::path::Path;

use ringfence_proto::v1;

use super::{
    CliError,
    args::{ExplainArgs, Format},
    client, json,
    output::{Colour, Output},
    words,
};

const HEADER: [&str; 7] = [
    "SIDE", "WORKLOAD", "POLICY", "VERDICT", "REASON", "RULE", "LOCATION",
];

pub(super) async fn run(
    socket: &Path,
    args: &ExplainArgs,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut client = client::connect(socket).await?;
    let request = v1::ExplainRequest {
        from: args.from.clone().unwrap_or_default(),
        to: args.to.clone().unwrap_or_default(),
        protocol: args.protocol.clone(),
        port: args.port.unwrap_or_default().into(),
    };
    let answer = client.explain(request).await?.into_inner();
    if output.format_or(Format::Table) == Format::Json {
        output.json(&json::explanation(&answer))?;
    } else {
        write(
            args.from.as_deref().unwrap_or_default(),
            args,
            &answer,
            output,
        )?;
    }
    output.flush()?;
    verdict(&answer)
}

/// What a denied flow is for the exit code.
pub(super) fn verdict(answer: &v1::ExplainResponse) -> Result<(), CliError> {
    if answer.allowed {
        return Ok(());
    }
    Err(CliError::Denied)
}

/// The answer about a flow from `from`; its first line in compact form.
pub(super) fn write(
    from: &str,
    args: &ExplainArgs,
    answer: &v1::ExplainResponse,
    output: &mut Output,
) -> Result<(), CliError> {
    let verdict = if !answer.allowed {
        output.style.paint(Colour::Bad, "DENY")
    } else if is_audit(answer) {
        output.style.paint(Colour::Warning, "AUDIT")
    } else {
        output.style.paint(Colour::Good, "ALLOW")
    };
    let to = args.to.as_deref().unwrap_or_default();
    let (port, protocol) = (args.port.unwrap_or_default(), &args.protocol);
    let flow = words::clean(&format!("{from} -> {to} {port}/{protocol}"));
    output.line(&format!("{verdict} {flow}"))?;
    if output.format_or(Format::Table) == Format::Compact {
        return Ok(());
    }
    let rows = rows(answer);
    if !rows.is_empty() {
        output.line("")?;
        output.table(&HEADER, rows)?;
    }
    notes(&answer.notes, output)
}

/// What the reader should know besides.
pub(super) fn notes(notes: &[String], output: &mut Output) -> Result<(), CliError> {
    for text in notes {
        let text = format!("Note: {}", words::clean(text));
        let text = output.style.paint(Colour::Warning, &text);
        output.line(&format!("\n{text}"))?;
    }
    Ok(())
}

/// Whether a side would deny, were the agent not in draft mode.
fn is_audit(answer: &v1::ExplainResponse) -> bool {
    [&answer.egress, &answer.ingress]
        .into_iter()
        .flatten()
        .filter_map(|side| side.enforced.as_ref())
        .any(|decision| decision.verdict == i32::from(v1::Verdict::Audit))
}

fn rows(answer: &v1::ExplainResponse) -> Vec<Vec<String>> {
    let sides = [("egress", &answer.egress), ("ingress", &answer.ingress)];
    let mut rows = Vec::new();
    for (name, side) in sides {
        let Some(side) = side else {
            continue;
        };
        for (policy, decision) in [("enforced", &side.enforced), ("draft", &side.draft)] {
            let Some(decision) = decision else {
                continue;
            };
            rows.push(vec![
                name.to_owned(),
                words::clean(&side.workload),
                policy.to_owned(),
                words::verdict(decision.verdict),
                words::clean(&decision.reason),
                words::rule(decision.rule.as_ref()),
                decision
                    .rule
                    .as_ref()
                    .map(|rule| words::clean(&rule.location))
                    .unwrap_or_default(),
            ]);
        }
    }
    rows
}
