//! `ringfence.v1.PolicyChange`: what an operator asks of the policy task.

use std::{path::Path, str::from_utf8, sync::Arc, time::Duration};

use ringfence_proto::{
    limits,
    v1::{self, apply_request, policy_change_server::PolicyChange},
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use tonic::{Request, Response, Status, Streaming};

use super::{connection::Peer, convert::timestamp};
use crate::{
    change::{Applied, Caller, Command, Files, Pending, Preview, Refusal, Wanted},
    flow,
};

/// Those that send documents at a time: each may send as much as a policy may have.
const MAX_APPLIES: usize = 1;
/// How long a client may take to send all documents.
const UPLOAD: Duration = Duration::from_secs(30);
/// Flows and listeners of a preview at most.
const MOST: usize = 1000;

/// Hands to the policy task, and its answers back.
pub(super) struct ChangeService {
    commands: mpsc::Sender<Command>,
    applies: Arc<Semaphore>,
    boot_now_ns: fn() -> u64,
}

impl ChangeService {
    pub(super) fn new(commands: mpsc::Sender<Command>, boot_now_ns: fn() -> u64) -> Self {
        Self {
            commands,
            boot_now_ns,
            applies: Arc::new(Semaphore::new(MAX_APPLIES)),
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Command,
    ) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        let gone = || Status::unavailable("the agent is stopping");
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| gone())?;
        let answer = answer.await.map_err(|_| gone())?;
        answer.map_err(|refusal| match refusal {
            Refusal::Policy(text) | Refusal::State(text) => {
                Status::failed_precondition(limits::clip_error(&text))
            }
        })
    }
}

#[tonic::async_trait]
impl PolicyChange for ChangeService {
    async fn apply(
        &self,
        request: Request<Streaming<v1::ApplyRequest>>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let by = caller(&request)?;
        let _place = self.applies.try_acquire().map_err(|_| {
            Status::resource_exhausted("another change is being applied at this moment; try again")
        })?;
        let read = read(request.into_inner());
        let (options, files) = timeout(UPLOAD, read).await.map_err(|_| {
            Status::deadline_exceeded(format!(
                "the documents were not sent within {} s",
                UPLOAD.as_secs()
            ))
        })??;
        let wanted = Wanted {
            files,
            prune: options.prune,
        };
        if options.dry_run {
            let preview = self.ask(|reply| Command::Preview { wanted, reply }).await?;
            return Ok(Response::new(foreseen(preview)));
        }
        let confirm = confirm(options.confirm_seconds)?;
        let ask = |reply| Command::Apply {
            wanted,
            confirm,
            by,
            reply,
        };
        let Applied {
            generation,
            unchanged,
            warnings,
            pending: trial,
        } = self.ask(ask).await?;
        let now = (self.boot_now_ns)();
        Ok(Response::new(v1::ApplyResponse {
            generation,
            unchanged,
            warnings,
            pending: trial.map(|trial| pending(&trial, now)),
            preview: None,
        }))
    }

    async fn confirm(
        &self,
        request: Request<v1::ConfirmRequest>,
    ) -> Result<Response<v1::ConfirmResponse>, Status> {
        let by = caller(&request)?;
        let kept = self.ask(|reply| Command::Confirm { by, reply }).await?;
        let change = Some(pending(&kept, (self.boot_now_ns)()));
        Ok(Response::new(v1::ConfirmResponse { change }))
    }

    async fn rollback(
        &self,
        _request: Request<v1::RollbackRequest>,
    ) -> Result<Response<v1::RollbackResponse>, Status> {
        let undone = self.ask(|reply| Command::Rollback { reply }).await?;
        let change = Some(pending(&undone, (self.boot_now_ns)()));
        Ok(Response::new(v1::RollbackResponse { change }))
    }
}

/// A trial as it stands at `boot_now_ns`.
pub(super) fn pending(trial: &Pending, boot_now_ns: u64) -> v1::PendingChange {
    v1::PendingChange {
        applied: Some(timestamp(trial.applied)),
        seconds_left: trial.seconds_left(boot_now_ns),
        uid: trial.uid,
        changed: trial.changed.clone(),
        removed: trial.removed.clone(),
    }
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let peer = request.extensions().get::<Peer>();
    peer.and_then(|peer| {
        Some(Caller {
            uid: peer.uid?,
            connection: peer.connection,
        })
    })
    .ok_or_else(|| Status::permission_denied("it is not known who asks"))
}

fn confirm(seconds: u32) -> Result<Option<Duration>, Status> {
    if seconds > limits::MAX_CONFIRM_SECONDS {
        return Err(Status::invalid_argument(format!(
            "`confirm_seconds`: {seconds} is more than {}",
            limits::MAX_CONFIRM_SECONDS
        )));
    }
    Ok((seconds > 0).then(|| Duration::from_secs(seconds.into())))
}

/// The options and the documents by name.
async fn read(
    mut stream: Streaming<v1::ApplyRequest>,
) -> Result<(v1::ApplyOptions, Files), Status> {
    let first = stream.message().await?.and_then(|message| message.request);
    let Some(apply_request::Request::Options(options)) = first else {
        return Err(Status::invalid_argument(
            "the first message is not `options`",
        ));
    };
    let mut texts: Vec<(String, Vec<u8>)> = Vec::new();
    let mut bytes = 0;
    while let Some(message) = stream.message().await? {
        let Some(apply_request::Request::Piece(piece)) = message.request else {
            return Err(Status::invalid_argument("a message is not a `piece`"));
        };
        bytes += piece.text.len() + piece.name.len();
        if bytes > limits::MAX_UPDATE_BYTES || texts.len() > limits::MAX_DOCUMENTS {
            return Err(Status::resource_exhausted(format!(
                "at most {} documents with {} bytes are taken",
                limits::MAX_DOCUMENTS,
                limits::MAX_UPDATE_BYTES
            )));
        }
        match texts.last_mut() {
            Some((name, text)) if *name == piece.name => text.extend(piece.text),
            _ => texts.push((piece.name, piece.text)),
        }
    }
    let mut files = Files::new();
    for (name, text) in texts {
        let text = document(&name, &text)?;
        let shown: String = name.chars().take(80).collect();
        if files.insert(name, text).is_some() {
            return Err(Status::invalid_argument(format!(
                "`{shown}` is there twice"
            )));
        }
    }
    Ok((options, files))
}

/// The text of a document that a policy directory can hold under this name.
fn document(name: &str, text: &[u8]) -> Result<String, Status> {
    let shown: String = name.chars().take(80).collect();
    // As the directory is read.
    let listed = Path::new(name).extension().is_some_and(|it| it == "toml");
    if !listed || name.starts_with('.') || !limits::is_document_name(name) {
        return Err(Status::invalid_argument(format!(
            "`{shown}` is no name of a document; it must be one component of a path, end in .toml and not begin with a dot"
        )));
    }
    from_utf8(text)
        .map(str::to_owned)
        .map_err(|_| Status::invalid_argument(format!("`{shown}` is not UTF-8 text")))
}

fn foreseen(preview: Preview) -> v1::ApplyResponse {
    let more = |all: usize| u64::try_from(all.saturating_sub(MOST)).unwrap_or(u64::MAX);
    let [workloads, policies, rules] = preview
        .sizes
        .map(|it| u32::try_from(it).unwrap_or(u32::MAX));
    let (cut, refused) = (preview.cut.len(), preview.refused.len());
    v1::ApplyResponse {
        generation: preview.generation,
        unchanged: false,
        warnings: preview.warnings,
        pending: None,
        preview: Some(v1::Preview {
            workloads,
            policies,
            rules,
            live_flows: u64::try_from(preview.live).unwrap_or(u64::MAX),
            cut_flows: preview.cut.into_iter().take(MOST).map(cut_flow).collect(),
            more_cut_flows: more(cut),
            refused_listeners: preview
                .refused
                .into_iter()
                .take(MOST)
                .map(refused_listener)
                .collect(),
            more_refused_listeners: more(refused),
            notes: preview.notes,
        }),
    }
}

fn cut_flow(cut: crate::change::Cut) -> v1::CutFlow {
    let tuple = cut.flow.tuple;
    let comm = cut.flow.owner.comm.split(|byte| *byte == 0).next();
    v1::CutFlow {
        workload: cut.workload,
        pid: cut.flow.owner.tgid,
        command: String::from_utf8_lossy(comm.unwrap_or_default()).into_owned(),
        direction: cut.flow.decision.direction.into(),
        protocol: tuple.protocol.into(),
        local_address: flow::address(tuple.local),
        local_port: tuple.local_port.into(),
        remote_address: flow::address(tuple.remote),
        remote_port: tuple.remote_port.into(),
        peer: cut.peer,
        decision: Some(cut.decision),
    }
}

fn refused_listener(refused: crate::change::Refused) -> v1::RefusedListener {
    let endpoint = refused.endpoint;
    v1::RefusedListener {
        workload: endpoint.workload.to_string(),
        protocol: endpoint.protocol.into(),
        address: endpoint.address.to_string(),
        port: endpoint.port.into(),
        decision: Some(refused.decision),
    }
}
