//! `ringfence workload list`, `identity list` and `endpoint list`.

use std::{collections::HashMap, path::Path};

use ringfence_policy::model::RESERVED;
use ringfence_proto::{text::listening, v1};
use serde_json::Value;
use tonic::transport::Channel;

use super::{
    CliError,
    args::Format,
    client, json, lists,
    output::{Colour, Output},
    words,
};

/// Processes or listeners in one cell at most.
const FEW: usize = 3;

type Client = v1::agent_client::AgentClient<Channel>;

/// The workloads in force, or one of them in full.
pub(super) async fn workloads(
    socket: &Path,
    one: Option<&str>,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut client = client::connect(socket).await?;
    let names: Vec<String> = one.map(str::to_owned).into_iter().collect();
    let reserved = one.and_then(reserved);
    // Asked first: it refuses a name that there is none of, and says which is meant.
    let endpoints = if reserved.is_none() {
        all_endpoints(&mut client, names.clone()).await?.0
    } else {
        Vec::new()
    };
    let processes = all_processes(&mut client, names).await?;
    let answer = client
        .list_workloads(v1::ListWorkloadsRequest {})
        .await?
        .into_inner();
    let mut by_workload: HashMap<&str, Rows<'_>> = HashMap::new();
    for process in &processes {
        let rows = by_workload.entry(&process.workload).or_default();
        rows.processes.push(process);
        for owner in &process.sockets_of_others {
            let rows = by_workload.entry(&owner.workload).or_default();
            rows.holders.push(process);
        }
    }
    for endpoint in &endpoints {
        let rows = by_workload.entry(&endpoint.workload).or_default();
        rows.listeners.push(endpoint);
    }
    let workloads = answer.workloads.iter().chain(&reserved);
    let wanted = workloads.filter(|workload| one.is_none_or(|one| one == workload.name));
    let listed = wanted.map(|workload| {
        let rows = by_workload.remove(workload.name.as_str());
        (workload, rows.unwrap_or_default())
    });
    let listed: Vec<(&v1::Workload, Rows<'_>)> = listed.collect();
    let format = output.format_or(Format::Table);
    if format == Format::Json {
        let values = listed.iter().map(|(workload, rows)| {
            json::workload(workload, &rows.processes, &rows.holders, &rows.listeners)
        });
        return output.json(&values.collect::<Value>());
    }
    match listed.as_slice() {
        [(workload, rows)] if one.is_some() && format == Format::Table => {
            in_full(workload, rows, output)
        }
        _ => overview(&listed, output),
    }
}

/// What stands for processes of no workload: `host`, `pending`, `unknown` … It has no listeners of its own.
fn reserved(name: &str) -> Option<v1::Workload> {
    let (name, identity) = RESERVED.iter().find(|(reserved, _)| *reserved == name)?;
    Some(v1::Workload {
        name: (*name).to_owned(),
        identity: *identity,
        location: "a reserved identity".to_owned(),
        ..v1::Workload::default()
    })
}

/// What is of one workload.
#[derive(Default)]
struct Rows<'a> {
    processes: Vec<&'a v1::LiveProcess>,
    /// Processes of others that hold sockets of it.
    holders: Vec<&'a v1::LiveProcess>,
    listeners: Vec<&'a v1::Endpoint>,
}

impl Rows<'_> {
    fn sockets(&self) -> u64 {
        let sockets = self.processes.iter();
        sockets.map(|process| u64::from(process.sockets)).sum()
    }
}

fn overview(listed: &[(&v1::Workload, Rows<'_>)], output: &mut Output) -> Result<(), CliError> {
    let rows = listed.iter().map(|(workload, rows)| {
        let commands = rows.processes.iter().map(|process| process.command.clone());
        let listeners = rows.listeners.iter().map(|endpoint| listening(endpoint));
        vec![
            words::clean(&workload.name),
            workload.identity.to_string(),
            words::labels(&workload.labels),
            workload.cgroups.len().to_string(),
            few(rows.processes.len(), commands),
            rows.sockets().to_string(),
            few(rows.listeners.len(), listeners),
            lists::some(&workload.policies),
            words::clean(&workload.location),
        ]
    });
    let header = [
        "NAME",
        "IDENTITY",
        "LABELS",
        "CGROUPS",
        "PROCESSES",
        "SOCKETS",
        "LISTENERS",
        "POLICIES",
        "LOCATION",
    ];
    output.table(&header, rows.collect())
}

/// How many, and the first few that differ.
fn few(number: usize, names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.map(|name| words::clean(&name)).collect();
    names.sort();
    names.dedup();
    let more = names.len().saturating_sub(FEW);
    names.truncate(FEW);
    match (number, more) {
        (0, _) => "0".to_owned(),
        (_, 0) => format!("{number} ({})", names.join(", ")),
        (_, more) => format!("{number} ({}, +{more})", names.join(", ")),
    }
}

fn in_full(workload: &v1::Workload, rows: &Rows<'_>, output: &mut Output) -> Result<(), CliError> {
    let name = words::clean(&workload.name);
    let location = words::clean(&workload.location);
    output.line(&format!(
        "{name}: identity {}, {location}",
        workload.identity
    ))?;
    let list = |items: &[String]| {
        let items: Vec<String> = items.iter().map(|item| words::clean(item)).collect();
        items.join(", ")
    };
    let facts = [
        ("Labels:", words::labels(&workload.labels)),
        ("Policies:", list(&workload.policies)),
        ("Selectors:", list(&workload.selectors)),
    ];
    let facts = facts.map(|(key, value)| vec![key.to_owned(), value]);
    output.line(&super::output::columns(None, facts.into()))?;

    title("Cgroups", workload.cgroups.len(), output)?;
    for cgroup in &workload.cgroups {
        output.line(&format!("  {}", words::clean(cgroup)))?;
    }
    title("Processes", rows.processes.len(), output)?;
    if !rows.processes.is_empty() {
        let processes = rows.processes.iter().map(|process| process_row(process));
        output.table(&PROCESS, processes.collect())?;
    }
    if !rows.holders.is_empty() {
        let what = "Processes of others that hold its sockets";
        title(what, rows.holders.len(), output)?;
        let [pid, command, executable, user, cgroup, sockets, _] = PROCESS;
        let header = [pid, command, executable, user, cgroup, sockets, "IS NOW"];
        let processes = rows.holders.iter().map(|process| {
            let mut row = process_row(process);
            let _because = row.pop();
            row.push(words::clean(&process.workload));
            row
        });
        output.table(&header, processes.collect())?;
    }
    title("Listeners", rows.listeners.len(), output)?;
    if !rows.listeners.is_empty() {
        let listeners = rows.listeners.iter().map(|endpoint| endpoint_row(endpoint));
        output.table(&ENDPOINT, listeners.collect())?;
    }
    Ok(())
}

fn title(text: &str, number: usize, output: &mut Output) -> Result<(), CliError> {
    let text = output
        .style
        .paint(Colour::Faint, &format!("{text}: {number}"));
    output.line(&format!("\n{text}"))
}

fn process_row(process: &v1::LiveProcess) -> Vec<String> {
    let because = process.selectors.iter();
    let because = because.map(|check| format!("{} = {}", check.key, check.wanted));
    vec![
        process.pid.to_string(),
        words::clean(&process.command),
        executable(process),
        user(process),
        words::clean(&process.cgroup),
        sockets(process),
        words::clean(&because.collect::<Vec<_>>().join(", ")),
    ]
}

/// The path, and where the file is unless it is there.
pub(super) fn executable(process: &v1::LiveProcess) -> String {
    let path = words::clean(&process.executable);
    if process.executable_state == i32::from(v1::ExecutableState::OnDisk) {
        return path;
    }
    let state = words::executable_state(process.executable_state);
    format!("{path} ({state})").trim_start().to_owned()
}

/// How many, and how many of them are of whom else.
pub(super) fn sockets(process: &v1::LiveProcess) -> String {
    let others = process.sockets_of_others.iter();
    let others: Vec<String> = others
        .map(|owner| format!("{} of {}", owner.sockets, words::clean(&owner.workload)))
        .collect();
    if others.is_empty() {
        return process.sockets.to_string();
    }
    format!("{} ({})", process.sockets, others.join(", "))
}

/// The number, and the name if there is one.
pub(super) fn user(process: &v1::LiveProcess) -> String {
    match process.user.as_str() {
        "" => process.uid.to_string(),
        name => format!("{} ({})", process.uid, words::clean(name)),
    }
}

/// Every identity.
pub(super) async fn identities(socket: &Path, output: &mut Output) -> Result<(), CliError> {
    let mut client = client::connect(socket).await?;
    let request = v1::ListIdentitiesRequest {};
    let mut stream = client.list_identities(request).await?.into_inner();
    let mut identities = Vec::new();
    while let Some(message) = stream.message().await? {
        identities.extend(message.identities);
    }
    if output.format_or(Format::Table) == Format::Json {
        return output.json(&identities.iter().map(json::identity).collect::<Value>());
    }
    let rows = identities.iter().map(|identity| {
        vec![
            identity.identity.to_string(),
            words::clean(&identity.name),
            words::clean(&identity.kind),
            words::labels(&identity.labels),
            identity.processes.to_string(),
            identity.cgroups.to_string(),
        ]
    });
    let header = ["IDENTITY", "NAME", "KIND", "LABELS", "PROCESSES", "CGROUPS"];
    output.table(&header, rows.collect())
}

const PROCESS: [&str; 7] = [
    "PID",
    "COMMAND",
    "EXECUTABLE",
    "USER",
    "CGROUP",
    "SOCKETS",
    "BECAUSE OF",
];
const ENDPOINT: [&str; 6] = [
    "WORKLOAD",
    "IDENTITY",
    "LISTENS ON",
    "TAKES",
    "DEVICE",
    "NAMESPACE",
];

/// Where workloads listen.
pub(super) async fn endpoints(
    socket: &Path,
    workloads: &[String],
    output: &mut Output,
) -> Result<(), CliError> {
    let mut client = client::connect(socket).await?;
    let (endpoints, omitted) = all_endpoints(&mut client, workloads.to_vec()).await?;
    if omitted > 0 {
        super::note(&format!(
            "ringfence: {omitted} endpoints of this host are not listed: there are too many"
        ));
    }
    if output.format_or(Format::Table) == Format::Json {
        return output.json(&endpoints.iter().map(json::endpoint).collect::<Value>());
    }
    output.table(&ENDPOINT, endpoints.iter().map(endpoint_row).collect())
}

fn endpoint_row(endpoint: &v1::Endpoint) -> Vec<String> {
    let takes = match (endpoint.address.len(), endpoint.dual_stack) {
        (16, true) => "ipv6, ipv4",
        (16, false) => "ipv6",
        _ => "ipv4",
    };
    vec![
        words::clean(&endpoint.workload),
        endpoint.identity.to_string(),
        listening(endpoint),
        takes.to_owned(),
        match endpoint.device {
            0 => String::new(),
            device => device.to_string(),
        },
        endpoint.namespace.to_string(),
    ]
}

async fn all_processes(
    client: &mut Client,
    workload: Vec<String>,
) -> Result<Vec<v1::LiveProcess>, CliError> {
    let request = v1::ListProcessesRequest { workload };
    let mut stream = client.list_processes(request).await?.into_inner();
    let mut processes = Vec::new();
    while let Some(message) = stream.message().await? {
        processes.extend(message.processes);
    }
    Ok(processes)
}

async fn all_endpoints(
    client: &mut Client,
    workload: Vec<String>,
) -> Result<(Vec<v1::Endpoint>, u64), CliError> {
    let request = v1::ListEndpointsRequest { workload };
    let mut stream = client.list_endpoints(request).await?.into_inner();
    let (mut endpoints, mut omitted) = (Vec::new(), 0);
    while let Some(message) = stream.message().await? {
        endpoints.extend(message.endpoints);
        omitted = message.omitted;
    }
    Ok((endpoints, omitted))
}
