//! The service account of a container, from the token that the kubelet mounts into it.
//!
//! The token is read on the host's side, from the volume that the kubelet made for this very pod and that no container
//! can write to, never through the container. Its signature is not checked: it is not the container that shows it.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Component, Path},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ringfence_proto::cri::{Mount, PodSandboxMetadata, PodSandboxStatus};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use serde::Deserialize;
use tokio::task::spawn_blocking;

/// Where a container finds its token.
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Kind of the volume as the kubelet names its directory: no container can write to such a volume.
const VOLUME: &str = "kubernetes.io~projected";
/// Bytes of a token; an ordinary one has 1 to 2 KiB.
const MAX_TOKEN: u64 = 32 << 10;

/// Payload of a service account token.
#[derive(Deserialize)]
pub(super) struct RawClaims {
    #[serde(rename = "kubernetes.io")]
    kubernetes: RawBinding,
}

/// Whom the token is for.
#[derive(Deserialize)]
struct RawBinding {
    namespace: String,
    #[serde(rename = "serviceaccount")]
    account: RawNamed,
    pod: Option<RawNamed>,
}

#[derive(Deserialize)]
struct RawNamed {
    name: String,
    #[serde(default)]
    uid: String,
}

/// Name of the service account of a container with these mounts; `None` if it has no token, or one that is not its own.
pub(super) async fn of(mounts: &[Mount], pod: &PodSandboxStatus) -> Option<String> {
    let mut of_token = mounts
        .iter()
        .filter(|mount| mount.container_path.trim_end_matches('/') == MOUNT);
    let mount = of_token.next()?.clone();
    let pod = pod.metadata.clone()?;
    let name = if of_token.next().is_some() {
        Err("two volumes are mounted over each other".to_owned())
    } else {
        let read = spawn_blocking(move || account(&mount, &pod)).await;
        read.unwrap_or_else(|error| Err(error.to_string()))
    };
    name.inspect_err(
        |reason| tracing::warn!(%reason, "the service account of a container can't be told"),
    )
    .ok()
}

fn account(mount: &Mount, pod: &PodSandboxMetadata) -> Result<String, String> {
    // `Debug` keeps control characters out of the log.
    let path = &mount.host_path;
    let volume = Path::new(path);
    if !mount.readonly || !is_of(volume, &pod.uid) {
        return Err(format!(
            "{path:?} is not a volume of tokens that the kubelet made for this pod"
        ));
    }
    let token = read(volume).map_err(|error| format!("no token in {path:?}: {error}"))?;
    let claims = claims(&token).ok_or_else(|| format!("the token in {path:?} can't be read"))?;
    let binding = claims.kubernetes;
    let other_pod = binding.pod.is_some_and(|it| it.uid != pod.uid);
    if binding.namespace != pod.namespace || other_pod {
        return Err(format!("the token in {path:?} is that of another pod"));
    }
    Ok(binding.account.name)
}

/// Whether the kubelet made this directory for this pod: `…/pods/UID/volumes/kubernetes.io~projected/NAME`.
fn is_of(volume: &Path, uid: &str) -> bool {
    let mut names: Vec<&str> = Vec::new();
    for component in volume.components() {
        match component {
            Component::RootDir => {}
            Component::Normal(name) => names.push(name.to_str().unwrap_or_default()),
            Component::Prefix(_) | Component::CurDir | Component::ParentDir => return false,
        }
    }
    let made = matches!(names.as_slice(), [.., "pods", of, "volumes", VOLUME, _] if *of == uid);
    made && volume.is_absolute() && !uid.is_empty()
}

/// Reads the token, whose links (the kubelet replaces the content in one step) must not leave the volume.
fn read(volume: &Path) -> io::Result<Vec<u8>> {
    let directory = openat(
        CWD,
        volume,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let token = openat2(
        directory,
        "token",
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV,
    )?;
    let file = File::from(token);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    let _length = file.take(MAX_TOKEN + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_TOKEN {
        return Err(io::Error::other("it is too long"));
    }
    Ok(bytes)
}

/// The second of the three parts of a JSON web token (RFC 7519).
pub(super) fn claims(token: &[u8]) -> Option<RawClaims> {
    let text = std::str::from_utf8(token).ok()?.trim_ascii();
    let mut parts = text.split('.');
    let (_head, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    let json = URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&json).ok()
}
