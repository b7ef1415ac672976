//! Servers on unix sockets in a directory of their own.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ringfence_proto::cri::{
    ContainerStatusRequest, ContainerStatusResponse, PodSandboxStatusRequest,
    PodSandboxStatusResponse,
    runtime_service_server::{RuntimeService, RuntimeServiceServer},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
    time::sleep,
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// A server that ends when it is dropped; its socket file stays.
pub struct Fake {
    dir: Arc<TempDir>,
    path: PathBuf,
    task: JoinHandle<()>,
    /// Most requests at a time so far.
    pub most: Arc<AtomicUsize>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a raw server writes to whoever asks for a path.
pub trait Answer: Fn(&str) -> Vec<u8> + Send + Sync + 'static {}
impl<F: Fn(&str) -> Vec<u8> + Send + Sync + 'static> Answer for F {}

impl Fake {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A server that writes what `answer` says and closes; an empty answer is never sent.
    pub fn raw(answer: impl Answer) -> Self {
        Self::raw_after(Duration::ZERO, answer)
    }

    /// The same after a pause.
    pub fn raw_after(pause: Duration, answer: impl Answer) -> Self {
        Self::raw_in(Arc::new(TempDir::new().unwrap()), pause, answer)
    }

    fn raw_in(dir: Arc<TempDir>, pause: Duration, answer: impl Answer) -> Self {
        let path = dir.path().join("runtime.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (answer, now) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
        let most = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&most);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, now, seen) =
                    (Arc::clone(&answer), Arc::clone(&now), Arc::clone(&seen));
                let _task = tokio::spawn(async move {
                    let mut stream = stream;
                    let Some(target) = asked_for(&mut stream).await else {
                        return;
                    };
                    let _before =
                        seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    sleep(pause).await;
                    let _before = now.fetch_sub(1, Ordering::SeqCst);
                    reply(stream, &answer(&target)).await;
                });
            }
        });
        Self {
            dir,
            path,
            task,
            most,
        }
    }

    /// Ends it, and starts another one on the same path.
    pub fn replaced(self, answer: impl Answer) -> Self {
        std::fs::remove_file(&self.path).unwrap();
        Self::raw_in(Arc::clone(&self.dir), Duration::ZERO, answer)
    }

    /// A runtime of Kubernetes.
    pub fn cri(runtime: Cri) -> Self {
        let dir = Arc::new(TempDir::new().unwrap());
        let path = dir.path().join("cri.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let service = RuntimeServiceServer::new(runtime).max_encoding_message_size(64 << 20);
        let served = Server::builder()
            .add_service(service)
            .serve_with_incoming(UnixListenerStream::new(listener));
        let task = tokio::spawn(async move { served.await.unwrap() });
        Self {
            dir,
            path,
            task,
            most: Arc::default(),
        }
    }
}

/// The path in the head of a request; `None` without one.
async fn asked_for(stream: &mut UnixStream) -> Option<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8_lossy(&request);
    text.split(' ').nth(1).map(str::to_owned)
}

async fn reply(mut stream: UnixStream, answer: &[u8]) {
    if answer.is_empty() {
        std::future::pending::<()>().await;
    }
    // Who has read enough closes the connection.
    let _broken = stream.write_all(answer).await;
}

/// An HTTP answer.
pub fn http(status: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// What podman answers for an id that it does not know (recorded from podman 4.3.1).
pub fn no_such_container() -> Vec<u8> {
    http(
        "404 Not Found",
        "{\"cause\":\"no such container\",\"message\":\"no container with name or ID \\\"nope\\\" found: no such container\",\"response\":404}",
    )
}

/// What a runtime of Kubernetes answers to whom.
#[derive(Clone, Default)]
pub struct Cri {
    pub containers: Vec<(String, Result<ContainerStatusResponse, Status>)>,
    pub sandboxes: Vec<(String, Result<PodSandboxStatusResponse, Status>)>,
    /// Before each answer.
    pub pause: Duration,
}

#[tonic::async_trait]
impl RuntimeService for Cri {
    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Result<Response<ContainerStatusResponse>, Status> {
        sleep(self.pause).await;
        let id = request.into_inner().container_id;
        of(&self.containers, &id).map(Response::new)
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Result<Response<PodSandboxStatusResponse>, Status> {
        sleep(self.pause).await;
        let id = request.into_inner().pod_sandbox_id;
        of(&self.sandboxes, &id).map(Response::new)
    }
}

fn of<T: Clone>(known: &[(String, Result<T, Status>)], id: &str) -> Result<T, Status> {
    let answer = known.iter().find(|(of, _)| of == id);
    // As containerd 1.6.20 says it.
    let unknown = || {
        Err(Status::not_found(format!(
            "an error occurred when try to find container \"{id}\": not found"
        )))
    };
    answer.map_or_else(unknown, |(_, answer)| answer.clone())
}
