//! Client of the Kubernetes container runtime interface, as containerd and CRI-O serve it.

use std::{collections::HashMap, io, path::Path};

use hyper_util::rt::TokioIo;
use ringfence_proto::cri::{
    ContainerState, ContainerStatus, ContainerStatusRequest, ContainerStatusResponse,
    PodSandboxState, PodSandboxStatus, PodSandboxStatusRequest, PodSandboxStatusResponse,
    runtime_service_client::RuntimeServiceClient,
};
use serde::Deserialize;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use super::{
    Facts,
    ask::{Found, MAX_BODY, Miss, Reply},
    digest,
    facts::{put, put_labels},
    is_id, service_account, socket,
};

/// Bytes of the headers of an answer.
const MAX_HEADERS: u32 = 16 << 10;

type Client = RuntimeServiceClient<Channel>;
type Info = HashMap<String, String>;

/// What containerd and CRI-O both say of a container or sandbox under `info`.
#[derive(Deserialize)]
struct RawInfo {
    #[serde(rename = "sandboxID")]
    sandbox: Option<String>,
    /// 0 while it does not run. CRI-O leaves it out for a pod that has no process of its own.
    pid: Option<u32>,
}

/// Asks for the container or the sandbox `id`, which was checked to be one.
pub(super) async fn ask(path: &Path, owner: u32, id: &str) -> Reply {
    let mut client = connect(path, owner).await?;
    match container(&mut client, id).await {
        Err(Miss::Absent) => {
            let (status, info) = sandbox(&mut client, id, true).await?;
            let mut facts = Facts::new();
            put_pod(&mut facts, &status)?;
            let pid = match status.state() {
                PodSandboxState::SandboxReady => raw_info(&info)?.pid.unwrap_or_default(),
                PodSandboxState::SandboxNotready => 0,
            };
            Ok(Found { pid, facts })
        }
        other => other,
    }
}

async fn container(client: &mut Client, id: &str) -> Reply {
    let request = ContainerStatusRequest {
        container_id: id.to_owned(),
        verbose: true,
    };
    let answer = client.container_status(request).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    let status = answer.status.unwrap_or_default();
    check_id(&status.id, id)?;
    let info = raw_info(&answer.info)?;
    let Some(sandbox_id) = info.sandbox.as_deref().filter(|sandbox| is_id(sandbox)) else {
        return Err(Miss::Failed(
            "the runtime does not say which sandbox a container is in".to_owned(),
        ));
    };
    let pod = match sandbox(client, sandbox_id, false).await {
        Ok((pod, _)) => pod,
        // The container is there, so this is no answer about it.
        Err(Miss::Absent) => {
            return Err(Miss::Failed(
                "the runtime does not know the sandbox of a container".to_owned(),
            ));
        }
        Err(miss) => return Err(miss),
    };
    let pid = match status.state() {
        ContainerState::ContainerRunning => info.pid.ok_or_else(no_process)?,
        ContainerState::ContainerCreated
        | ContainerState::ContainerExited
        | ContainerState::ContainerUnknown => 0,
    };
    let account = service_account::of(&status.mounts, &pod).await;
    let mut facts = facts(status, &pod)?;
    put(
        &mut facts,
        "k8s.service-account",
        &account.unwrap_or_default(),
    );
    Ok(Found { pid, facts })
}

fn facts(status: ContainerStatus, pod: &PodSandboxStatus) -> Result<Facts, Miss> {
    let mut facts = Facts::new();
    put_pod(&mut facts, pod)?;
    let name = status.metadata.unwrap_or_default().name;
    put(&mut facts, "container.name", &name);
    let image = status.image.unwrap_or_default().image;
    put(&mut facts, "container.image", &image);
    let digest = digest::of_reference(&status.image_ref);
    put(
        &mut facts,
        "container.image-digest",
        digest.unwrap_or_default(),
    );
    put_labels(&mut facts, "container.label.", status.labels)?;
    Ok(facts)
}

/// What [`ask`] makes of two answers.
pub(super) fn read_answers(container: ContainerStatusResponse, pod: PodSandboxStatusResponse) {
    let info = [raw_info(&container.info), raw_info(&pod.info)];
    let _sandboxes = info.map(|info| info.map(|info| info.sandbox.as_deref().map(is_id)));
    let status = container.status.unwrap_or_default();
    let _read = facts(status, &pod.status.unwrap_or_default());
}

fn put_pod(facts: &mut Facts, pod: &PodSandboxStatus) -> Result<(), Miss> {
    let metadata = pod.metadata.clone().unwrap_or_default();
    put(facts, "k8s.namespace", &metadata.namespace);
    put(facts, "k8s.pod-name", &metadata.name);
    put_labels(facts, "k8s.pod-label.", pod.labels.clone())
}

async fn sandbox(
    client: &mut Client,
    id: &str,
    verbose: bool,
) -> Result<(PodSandboxStatus, Info), Miss> {
    let request = PodSandboxStatusRequest {
        pod_sandbox_id: id.to_owned(),
        verbose,
    };
    let answer = client.pod_sandbox_status(request).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    let status = answer.status.unwrap_or_default();
    check_id(&status.id, id)?;
    Ok((status, answer.info))
}

/// The runtimes take the beginning of an id for the whole.
fn check_id(said: &str, asked: &str) -> Result<(), Miss> {
    if said == asked {
        return Ok(());
    }
    Err(Miss::said("the answer is about another container", said))
}

fn raw_info(info: &Info) -> Result<RawInfo, Miss> {
    let json = info.get("info").ok_or_else(no_process)?;
    serde_json::from_str(json).map_err(|error| Miss::garbled(&error))
}

fn no_process() -> Miss {
    Miss::Failed("the runtime does not say which process a container is".to_owned())
}

fn refused(status: &Status) -> Miss {
    if status.code() == Code::NotFound {
        return Miss::Absent;
    }
    if status.code() == Code::Unimplemented {
        // A containerd that serves docker only, with its CRI switched off.
        return Miss::NotThere("it does not serve CRI v1".to_owned());
    }
    let what = format!("the answer is {:?}", status.code());
    Miss::said(&what, status.message())
}

/// Connects for this question; the caller sets the deadline.
async fn connect(path: &Path, owner: u32) -> Result<Client, Miss> {
    let mut stream = Some(TokioIo::new(socket::open(path, owner).await?));
    let connector = tower::service_fn(move |_| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    let channel = Endpoint::from_static("http://localhost")
        .http2_max_header_list_size(MAX_HEADERS)
        .connect_with_connector(connector)
        .await
        .map_err(|error| Miss::said("the connection broke", &error.to_string()))?;
    Ok(RuntimeServiceClient::new(channel).max_decoding_message_size(MAX_BODY))
}
