//! `ringfence observe`: flow records, past and to come.

use std::path::Path;

use ringfence_proto::v1::{self, get_flows_response::Response};
use tokio::signal;
use tonic::Streaming;

use super::{
    CliError,
    args::{Format, ObserveArgs},
    client, json, line, note,
    output::Output,
};

/// Records shown when neither `--last` nor `--follow` is given.
const LAST: u64 = 20;

pub(super) async fn run(
    socket: &Path,
    args: &ObserveArgs,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut client = client::connect(socket).await?;
    let stream = client.get_flows(request(args)).await?.into_inner();
    tokio::select! {
        // What was written stays written; being interrupted is how following ends.
        _ = signal::ctrl_c(), if args.follow => output.flush(),
        written = write(stream, args.follow, output) => written,
    }
}

/// The request that the options ask for.
pub(super) fn request(args: &ObserveArgs) -> v1::GetFlowsRequest {
    let filter = v1::FlowFilter {
        workload: args.workload.clone(),
        port: args.port.iter().copied().map(u32::from).collect(),
        verdict: args.verdict.iter().copied().map(i32::from).collect(),
        draft_verdict: args.draft_verdict.iter().copied().map(i32::from).collect(),
        direction: args.direction.iter().copied().map(i32::from).collect(),
        protocol: args.protocol.iter().copied().map(u32::from).collect(),
        address: args.address.iter().map(ToString::to_string).collect(),
        event: args.event.iter().copied().map(i32::from).collect(),
    };
    v1::GetFlowsRequest {
        last: args.last.unwrap_or(if args.follow { 0 } else { LAST }),
        follow: args.follow,
        filters: vec![filter],
    }
}

async fn write(
    mut stream: Streaming<v1::GetFlowsResponse>,
    follow: bool,
    output: &mut Output,
) -> Result<(), CliError> {
    let format = output.format_or(Format::Compact);
    if format == Format::Table && follow {
        // A table that fits its rows needs their end before the first one.
        output.line(&line::fixed(&line::HEADER))?;
        output.flush()?;
    }
    let mut rows = Vec::new();
    while let Some(message) = stream.message().await? {
        let flow = match message.response {
            Some(Response::Flow(flow)) => flow,
            Some(Response::Lost(lost)) => {
                note(&format!(
                    "ringfence: {lost} records lost: the reader was too slow"
                ));
                continue;
            }
            None => continue,
        };
        match format {
            Format::Table if follow => output.line(&line::fixed(&line::row(&flow)))?,
            Format::Table => rows.push(line::row(&flow)),
            Format::Json => output.json_line(&json::flow(&flow))?,
            Format::Compact => {
                let text = line::compact(&flow, output.style);
                output.line(&text)?;
            }
        }
        if follow {
            output.flush()?;
        }
    }
    if format == Format::Table && !follow {
        output.table(&line::HEADER, rows)?;
    }
    output.flush()
}
