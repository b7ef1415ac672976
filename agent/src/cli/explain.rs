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
        from: args.from.clone(),
        to: args.to.clone(),
        protocol: args.protocol.clone(),
        port: u32::from(args.port),
    };
    let answer = client.explain(request).await?.into_inner();
    write(args, &answer, output)?;
    output.flush()?;
    if answer.allowed {
        return Ok(());
    }
    Err(CliError::Denied)
}

fn write(
    args: &ExplainArgs,
    answer: &v1::ExplainResponse,
    output: &mut Output,
) -> Result<(), CliError> {
    let format = output.format_or(Format::Table);
    if format == Format::Json {
        return output.json(&json::explanation(answer));
    }
    let verdict = if !answer.allowed {
        output.style.paint(Colour::Bad, "DENY")
    } else if is_audit(answer) {
        output.style.paint(Colour::Warning, "AUDIT")
    } else {
        output.style.paint(Colour::Good, "ALLOW")
    };
    let ExplainArgs {
        from,
        to,
        port,
        protocol,
    } = args;
    output.line(&format!("{verdict} {from} -> {to} {port}/{protocol}"))?;
    if format == Format::Compact {
        return Ok(());
    }
    output.line("")?;
    output.table(&HEADER, rows(answer))?;
    for text in &answer.notes {
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
