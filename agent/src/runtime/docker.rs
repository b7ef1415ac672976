//! Client of the Docker Engine API, as docker and podman serve it: two GET requests.

use std::{collections::BTreeMap, path::Path};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Facts,
    ask::{Found, MAX_BODY, Miss, Reply},
    digest,
    facts::{put, put_labels},
    socket,
};

/// Bytes of the head of an answer.
const MAX_HEAD: usize = 64 << 10;

/// `GET /containers/ID/json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawContainer {
    id: String,
    /// With a slash before it.
    #[serde(default)]
    name: String,
    /// Id of the image; podman writes an empty one for a container without image.
    #[serde(default)]
    image: String,
    state: RawState,
    config: RawConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawState {
    /// 0 while it does not run.
    pid: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    /// The image as it was called when the container was made.
    #[serde(default)]
    image: String,
    labels: Option<BTreeMap<String, String>>,
}

/// `GET /images/ID/json`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawImage {
    repo_digests: Option<Vec<String>>,
}

/// Asks for the container `id`, which was checked to be one.
pub(super) async fn ask(path: &Path, owner: u32, id: &str) -> Reply {
    let container: RawContainer = get(path, owner, &format!("/containers/{id}/json")).await?;
    // The runtimes look for names, too: a container can be called like another one's id.
    if container.id != id {
        return Err(Miss::said(
            "the answer is about another container",
            &container.id,
        ));
    }
    let image = if digest::is_digest(&container.image) {
        match get(path, owner, &format!("/images/{}/json", container.image)).await {
            Ok(image) => image,
            // Removed since the container was made.
            Err(Miss::Absent) => RawImage::default(),
            Err(miss) => return Err(miss),
        }
    } else {
        RawImage::default()
    };
    read(container, &image)
}

fn read(container: RawContainer, image: &RawImage) -> Reply {
    let config = container.config;
    let mut facts = Facts::new();
    put(
        &mut facts,
        "container.name",
        container.name.trim_start_matches('/'),
    );
    put(&mut facts, "container.image", &config.image);
    put_labels(
        &mut facts,
        "container.label.",
        config.labels.unwrap_or_default(),
    )?;
    let known = image.repo_digests.as_deref().unwrap_or_default();
    let digest = digest::choose(&config.image, known);
    put(
        &mut facts,
        "container.image-digest",
        digest.unwrap_or_default(),
    );
    Ok(Found {
        pid: container.state.pid,
        facts,
    })
}

/// What [`ask`] makes of two answers.
pub(super) fn read_json(container: &[u8], image: &[u8]) {
    if let Ok(container) = serde_json::from_slice(container) {
        let _read = read(
            container,
            &serde_json::from_slice(image).unwrap_or_default(),
        );
    }
}

/// One request on a connection of its own.
async fn get<T: DeserializeOwned>(path: &Path, owner: u32, target: &str) -> Result<T, Miss> {
    let broken = |error: hyper::Error| Miss::said("the connection broke", &error.to_string());
    let stream = socket::open(path, owner).await?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let request = Request::get(target)
        .header(HOST, "localhost")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Miss::said("the request can't be made", &error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Err(Miss::Absent);
        }
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body = body.map_err(|error| Miss::garbled(&error))?.to_bytes();
        if status != StatusCode::OK {
            let text = String::from_utf8_lossy(&body);
            return Err(Miss::said(&format!("the answer is {status}"), &text));
        }
        Ok(body)
    };
    // The connection ends with the exchange, or before it; in either case the exchange tells.
    let body = drive(exchange, connection).await?;
    serde_json::from_slice(&body).map_err(|error| Miss::garbled(&error))
}

/// Awaits `exchange` while `connection` moves its bytes.
async fn drive<T, C: Future>(exchange: impl Future<Output = T>, connection: C) -> T {
    let (mut exchange, mut connection) = (std::pin::pin!(exchange), std::pin::pin!(connection));
    tokio::select! {
        done = &mut exchange => done,
        _ended = &mut connection => exchange.await,
    }
}
