//! Why a process has its identity, and what would be decided about a flow of it.

use std::sync::Arc;

use ringfence_common::abi::identity;
use ringfence_proto::v1;
use tokio::sync::Semaphore;
use tonic::Status;

use super::{
    Context,
    explain::Judge,
    processes::{Moment, blocking, message, open_sockets, owners, place},
};
use crate::identity::{
    live::Processes,
    why::{self, Asked, Candidate},
};

/// Candidates in one answer.
const CANDIDATES: usize = 50;

/// The answer to `ExplainProcess`.
pub(super) async fn process(
    context: &Context,
    walks: &Arc<Semaphore>,
    judge: Judge<'_>,
    request: v1::ExplainProcessRequest,
) -> Result<v1::ExplainProcessResponse, Status> {
    let pid = request.pid;
    if pid == 0 {
        return Err(Status::invalid_argument("`pid` is 0; name a process"));
    }
    let place = place(walks)?;
    let moment = Moment::of(context);
    let owners = owners(context).await;
    let explain = move || {
        let _place = place;
        let live = Processes::new(&moment.root, &moment.tables)?.one(pid)?;
        let (set, root) = (&moment.view.set, moment.root_id());
        let identities = &moment.view.identities;
        let asked = Asked::new(moment.hash_limit);
        let why = why::explain(
            asked,
            &live,
            &set.workloads,
            identities,
            &moment.tables,
            root,
        );
        let name = moment.name(why.identity);
        let mut process = message(
            &live,
            why.identity,
            name,
            &mut Asked::new(moment.hash_limit),
        );
        let (sockets, of_others) = open_sockets(live.tgid, why.identity, &owners, &moment);
        process.sockets = sockets;
        let more = why.candidates.len().saturating_sub(CANDIDATES);
        let shown = why.candidates.into_iter().take(CANDIDATES);
        let mut notes = why.notes;
        notes.extend(of_others.iter().map(of_another));
        process.sockets_of_others = of_others;
        if live.tgid != pid {
            notes.insert(0, format!("{pid} is a thread of process {}", live.tgid));
        }
        if live.ended {
            notes.insert(0, "it has ended, and waits for its parent".to_owned());
        }
        Ok(v1::ExplainProcessResponse {
            reason: why.reason,
            executable_note: why.executable,
            candidates: shown
                .map(|candidate| message_of(&moment, candidate))
                .collect(),
            more_candidates: u32::try_from(more).unwrap_or(u32::MAX),
            flow: None,
            process: Some(process),
            notes,
        })
    };
    let mut answer = blocking(explain).await?;
    if !request.to.is_empty() {
        let from = answer.process.as_ref();
        let (number, name) =
            from.map_or((0, String::new()), |it| (it.identity, it.workload.clone()));
        answer.flow = Some(flow(&judge, number, name, request)?);
    }
    Ok(answer)
}

/// What a socket of another owner means.
fn of_another(owner: &v1::SocketOwner) -> String {
    format!(
        "of its sockets {} of {}, because who bound or connected them was of {} then; that stays so until they are closed \
         (docs/ownership.md)",
        if owner.sockets == 1 {
            "1 is".to_owned()
        } else {
            format!("{} are", owner.sockets)
        },
        owner.workload,
        owner.workload,
    )
}

/// What would be decided about a flow from a party with this identity.
fn flow(
    judge: &Judge<'_>,
    number: u32,
    name: String,
    request: v1::ExplainProcessRequest,
) -> Result<v1::ExplainResponse, Status> {
    let says = |allowed, text: &str| v1::ExplainResponse {
        allowed,
        notes: vec![text.to_owned()],
        ..v1::ExplainResponse::default()
    };
    if number == identity::AGENT {
        return Ok(says(true, "the agent's own traffic always passes"));
    }
    if number == identity::PENDING {
        let text = "nothing is decided while the process is pending: what it sends is held, and refused in the end";
        return Ok(says(false, text));
    }
    if number == identity::UNKNOWN {
        return Ok(says(
            false,
            "a process of unknown identity is never allowed anything",
        ));
    }
    let local = !identity::is_workload(number);
    let to = request.to.split('@').next().unwrap_or_default();
    if local && !judge.view.identities.contains_key(to) {
        return Ok(says(
            true,
            "neither end is a workload, so no policy decides",
        ));
    }
    judge.explain(&v1::ExplainRequest {
        from: name,
        to: request.to,
        protocol: request.protocol,
        port: request.port,
    })
}

fn message_of(moment: &Moment, candidate: Candidate) -> v1::Candidate {
    let workload = moment.view.set.workloads.get(candidate.workload);
    let name = workload
        .map(|workload| workload.name.clone())
        .unwrap_or_default();
    v1::Candidate {
        identity: moment.view.identities.get(&name).copied().unwrap_or(0),
        location: workload.map_or_else(String::new, |it| format!("{}:{}", it.file, it.line)),
        workload: name,
        selectors: candidate.checks.into_iter().map(Into::into).collect(),
        matched: candidate.matched,
        criterion: candidate.criterion,
    }
}
