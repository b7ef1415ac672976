//! The client of the Kubernetes container runtime interface.

use std::time::Duration;

use prost::Message as _;
use ringfence_proto::cri::{
    ContainerMetadata, ContainerState, ContainerStatus, ContainerStatusResponse, ImageSpec,
    PodSandboxMetadata, PodSandboxState, PodSandboxStatus, PodSandboxStatusResponse,
};
use tonic::Status;

use super::{
    fake::{Cri, Fake},
    *,
};

/// Recorded from containerd 1.6.20 (`info` of `ContainerStatus` and `PodSandboxStatus`, verbose).
const CONTAINER_INFO: &str = include_str!("../fixtures/containerd-container.json");
const SANDBOX_INFO: &str = include_str!("../fixtures/containerd-sandbox.json");
pub const CONTAINER: &str = "679e9d1a7eacaf6dd10879b2a1685aebaa11f111e9153f7a54b66eea3d498a76";
const SANDBOX: &str = "602345bc5e1c988c6111bb5e4828fa2d541b4f3f1da9337428c305bea6990d73";
/// Recorded from CRI-O 1.37 (`ContainerStatus` and `PodSandboxStatus`, verbose): a pod without a process of its own, as
/// `drop_infra_ctr` leaves it.
const CRIO_CONTAINER: &[u8] = include_bytes!("../fixtures/crio-container.bin");
const CRIO_SANDBOX: &[u8] = include_bytes!("../fixtures/crio-sandbox.bin");
const CRIO_PID: u32 = 21846;

pub fn pod() -> PodSandboxStatus {
    let uid = "11111111-2222-3333-4444-555555555555";
    let labels = [
        ("app", "web"),
        ("app.kubernetes.io/part-of", "shop"),
        ("io.kubernetes.pod.name", "web-0"),
        ("io.kubernetes.pod.namespace", "shop"),
        ("io.kubernetes.pod.uid", uid),
    ];
    PodSandboxStatus {
        id: SANDBOX.to_owned(),
        metadata: Some(PodSandboxMetadata {
            name: "web-0".to_owned(),
            uid: uid.to_owned(),
            namespace: "shop".to_owned(),
        }),
        state: PodSandboxState::SandboxReady.into(),
        labels: facts(&labels).into_iter().collect(),
    }
}

fn sandbox() -> PodSandboxStatusResponse {
    PodSandboxStatusResponse {
        status: Some(pod()),
        info: facts(&[("info", SANDBOX_INFO)]).into_iter().collect(),
    }
}

fn container() -> ContainerStatusResponse {
    let labels = [
        ("io.kubernetes.container.name", "web"),
        ("io.kubernetes.pod.name", "web-0"),
    ];
    ContainerStatusResponse {
        status: Some(ContainerStatus {
            id: CONTAINER.to_owned(),
            metadata: Some(ContainerMetadata {
                name: "web".to_owned(),
            }),
            state: ContainerState::ContainerRunning.into(),
            image: Some(ImageSpec {
                image: "registry.example/web:1".to_owned(),
            }),
            image_ref: format!("registry.example/web@sha256:{}", "3".repeat(64)),
            labels: facts(&labels).into_iter().collect(),
            mounts: Vec::new(),
        }),
        info: facts(&[("info", CONTAINER_INFO)]).into_iter().collect(),
    }
}

pub fn runtime() -> Cri {
    Cri {
        containers: vec![(CONTAINER.to_owned(), Ok(container()))],
        sandboxes: vec![(SANDBOX.to_owned(), Ok(sandbox()))],
        pause: Duration::ZERO,
    }
}

/// The answer about the container after `change`.
async fn changed(change: impl FnOnce(&mut ContainerStatus, &mut String)) -> Outcome {
    let mut answer = container();
    let mut info = CONTAINER_INFO.to_owned();
    change(answer.status.as_mut().unwrap(), &mut info);
    let _before = answer.info.insert("info".to_owned(), info);
    let containers = vec![(CONTAINER.to_owned(), Ok(answer))];
    told(Cri {
        containers,
        ..runtime()
    })
    .await
}

async fn told(runtime: Cri) -> Outcome {
    let fake = Fake::cri(runtime);
    outcome(named(&[], &[fake.path()]), CONTAINER).await
}

fn of_pod() -> Facts {
    facts(&[
        ("k8s.namespace", "shop"),
        ("k8s.pod-label.app", "web"),
        ("k8s.pod-label.app.kubernetes.io/part-of", "shop"),
        ("k8s.pod-label.io.kubernetes.pod.name", "web-0"),
        ("k8s.pod-label.io.kubernetes.pod.namespace", "shop"),
        (
            "k8s.pod-label.io.kubernetes.pod.uid",
            "11111111-2222-3333-4444-555555555555",
        ),
        ("k8s.pod-name", "web-0"),
    ])
}

fn of_container() -> Facts {
    let digest = format!("sha256:{}", "3".repeat(64));
    let mut known = facts(&[
        ("container.name", "web"),
        ("container.image", "registry.example/web:1"),
        ("container.image-digest", &digest),
        ("container.label.io.kubernetes.container.name", "web"),
        ("container.label.io.kubernetes.pod.name", "web-0"),
    ]);
    known.append(&mut of_pod());
    known
}

#[tokio::test]
async fn a_container_of_containerd_is_known_with_its_pod() {
    let (pid, known) = found(told(runtime()).await);
    assert_eq!((pid, known), (17451, of_container()));
}

/// CRI-O with one pod, and the ids of the container and of the pod.
fn crio() -> (Cri, [String; 2]) {
    let container = ContainerStatusResponse::decode(CRIO_CONTAINER).unwrap();
    let sandbox = PodSandboxStatusResponse::decode(CRIO_SANDBOX).unwrap();
    let ids = [
        container.status.as_ref().unwrap().id.clone(),
        sandbox.status.as_ref().unwrap().id.clone(),
    ];
    let runtime = Cri {
        containers: vec![(ids[0].clone(), Ok(container))],
        sandboxes: vec![(ids[1].clone(), Ok(sandbox))],
        ..Cri::default()
    };
    (runtime, ids)
}

#[tokio::test]
async fn a_container_of_crio_is_known_with_its_pod() {
    let (runtime, [id, _]) = crio();
    let fake = Fake::cri(runtime);
    let (pid, known) = found(outcome(named(&[], &[fake.path()]), &id).await);
    assert_eq!(pid, CRIO_PID);
    let mut expected = facts(&[
        ("container.name", "web"),
        // It was started as `127.0.0.1:5000/shop/web:2.1`: CRI-O shows the first name of the same image.
        ("container.image", "127.0.0.1:5000/mirror/web:stable"),
        (
            "container.image-digest",
            "sha256:0fd3642aebcf00636b20e0efaf16a123c172304c1771edee8f80920476c2bac0",
        ),
        ("container.label.io.kubernetes.container.name", "web"),
        ("container.label.io.kubernetes.pod.name", "web-0"),
        ("k8s.pod-label.io.kubernetes.container.name", "POD"),
    ]);
    expected.append(&mut of_pod());
    assert_eq!(known, expected);
}

#[tokio::test]
async fn a_sandbox_of_crio_without_a_process_has_none() {
    let (runtime, [_, id]) = crio();
    let fake = Fake::cri(runtime);
    let mut asker = Asker::new(named(&[], &[fake.path()]));
    let (pid, known) = found(asker.ask(&id).await);
    assert_eq!(
        (pid, known.get("k8s.pod-name").unwrap().as_str()),
        (0, "web-0")
    );
    assert_eq!(asker.states(), [State::Ok]);
}

#[tokio::test]
async fn a_sandbox_is_known_by_its_own_id() {
    let fake = Fake::cri(runtime());
    let (pid, known) = found(outcome(named(&[], &[fake.path()]), SANDBOX).await);
    assert_eq!((pid, known), (17418, of_pod()));
    let mut stopped = sandbox();
    stopped.status.as_mut().unwrap().state = PodSandboxState::SandboxNotready.into();
    let sandboxes = vec![(SANDBOX.to_owned(), Ok(stopped))];
    let fake = Fake::cri(Cri {
        sandboxes,
        ..runtime()
    });
    let (pid, _) = found(outcome(named(&[], &[fake.path()]), SANDBOX).await);
    assert_eq!(pid, 0);
}

#[tokio::test]
async fn only_a_container_that_runs_has_a_process() {
    for state in [
        ContainerState::ContainerCreated,
        ContainerState::ContainerExited,
        ContainerState::ContainerUnknown,
    ] {
        let outcome = changed(|status, _| status.state = state.into()).await;
        assert_eq!(found(outcome), (0, of_container()), "{state:?}");
    }
}

#[tokio::test]
async fn an_image_without_name_in_a_registry_has_no_digest() {
    let id = format!("sha256:{}", "3".repeat(64));
    for image_ref in [id.as_str(), "", "x@sha256:short", "x@md5:0"] {
        let outcome = changed(|status, _| image_ref.clone_into(&mut status.image_ref)).await;
        let (_, known) = found(outcome);
        assert_eq!(known.get("container.image-digest"), None, "{image_ref}");
    }
}

#[tokio::test]
async fn an_unknown_id_is_absent() {
    assert_eq!(told(Cri::default()).await, Outcome::Absent);
}

#[tokio::test]
async fn answers_that_are_not_about_the_container_fail() {
    let outcome = changed(|status, _| OTHER.clone_into(&mut status.id)).await;
    assert_failed(&outcome, "about another container");
    let outcome = changed(|_, info| info.clear()).await;
    assert_failed(&outcome, "can't be read");
    let outcome = changed(|_, info| *info = "{\"pid\":1}".to_owned()).await;
    assert_failed(&outcome, "which sandbox");
    for pid in ["-1", "1e99", "\"1\""] {
        let outcome =
            changed(|_, info| *info = format!("{{\"sandboxID\":\"{SANDBOX}\",\"pid\":{pid}}}"))
                .await;
        assert_failed(&outcome, "can't be read");
    }
    let mut silent = container();
    silent.info.clear();
    let containers = vec![(CONTAINER.to_owned(), Ok(silent))];
    assert_failed(
        &told(Cri {
            containers,
            ..runtime()
        })
        .await,
        "which process",
    );
    let containers = vec![(CONTAINER.to_owned(), Ok(ContainerStatusResponse::default()))];
    assert_failed(
        &told(Cri {
            containers,
            ..runtime()
        })
        .await,
        "about another container",
    );
    let sandboxes = Vec::new();
    assert_failed(
        &told(Cri {
            sandboxes,
            ..runtime()
        })
        .await,
        "does not know the sandbox",
    );
}

#[tokio::test]
async fn floods_are_refused() {
    let outcome = changed(|status, _| {
        status.labels = (0..600).map(|n| (format!("l{n}"), String::new())).collect();
    })
    .await;
    assert_failed(&outcome, "600 labels");
    let outcome = changed(|_, info| info.push_str(&" ".repeat(5 << 20))).await;
    assert_failed(&outcome, "the answer is OutOfRange");
    let containers = vec![(
        CONTAINER.to_owned(),
        Err(Status::internal("x".repeat(1 << 20))),
    )];
    let Outcome::Failed(text) = told(Cri {
        containers,
        ..runtime()
    })
    .await
    else {
        panic!("no failure");
    };
    assert!(text.len() < 8 << 10, "{}", text.len());
}

#[tokio::test]
async fn what_does_not_speak_grpc_is_a_failure() {
    for answer in [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        vec![0; 100_000],
    ] {
        let fake = Fake::raw(move |_| answer.clone());
        let outcome = outcome(named(&[], &[fake.path()]), OTHER).await;
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_containerd_without_cri_is_no_runtime_of_kubernetes_unless_it_is_named() {
    let containers = vec![(
        CONTAINER.to_owned(),
        Err(Status::unimplemented(
            "unknown service runtime.v1.RuntimeService",
        )),
    )];
    let fake = Fake::cri(Cri {
        containers,
        ..Cri::default()
    });
    let mut asker = Asker::new(well_known(&[], &[fake.path()]));
    assert_eq!(asker.ask(CONTAINER).await, Outcome::Absent);
    assert_eq!(asker.states(), [State::Absent]);
    assert_failed(
        &outcome(named(&[], &[fake.path()]), CONTAINER).await,
        "does not serve CRI v1",
    );
}
