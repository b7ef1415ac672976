//! The service account in a volume as the kubelet makes it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use nix::{sys::stat::Mode, unistd::mkfifo};
use ringfence_proto::cri::Mount;
use tempfile::TempDir;

use super::cri::pod;
use crate::runtime::service_account;

const UID: &str = "11111111-2222-3333-4444-555555555555";

/// The directory of a volume below a kubelet's.
fn volume(kubelet: &TempDir, uid: &str, kind: &str) -> PathBuf {
    let volume = kubelet
        .path()
        .join("pods")
        .join(uid)
        .join("volumes")
        .join(kind)
        .join("kube-api-access-x7v2k");
    fs::create_dir_all(&volume).unwrap();
    volume
}

/// Writes a token as the kubelet does: `token` -> `..data/token`, `..data` -> a directory with the time in its name.
fn write(volume: &Path, token: &str) {
    let content = volume.join("..2026_01_31_12_00_00.123456789");
    fs::create_dir(&content).unwrap();
    fs::write(content.join("token"), token).unwrap();
    symlink(content.file_name().unwrap(), volume.join("..data")).unwrap();
    symlink("..data/token", volume.join("token")).unwrap();
}

/// A token with these claims, as the API server of Kubernetes 1.30 writes them.
fn token(namespace: &str, account: &str, uid: &str) -> String {
    let claims = format!(
        "{{\"aud\":[\"https://kubernetes.default.svc\"],\"exp\":1801396800,\"kubernetes.io\":{{\"namespace\":\"{namespace}\",\
         \"node\":{{\"name\":\"node-1\",\"uid\":\"7\"}},\"pod\":{{\"name\":\"web-0\",\"uid\":\"{uid}\"}},\
         \"serviceaccount\":{{\"name\":\"{account}\",\"uid\":\"8\"}}}},\"sub\":\"system:serviceaccount:{namespace}:{account}\"}}"
    );
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!(
        "{}.{}.{}",
        part("{\"alg\":\"RS256\"}"),
        part(&claims),
        part("signature")
    )
}

fn mount(host: &Path) -> Mount {
    Mount {
        container_path: "/var/run/secrets/kubernetes.io/serviceaccount".to_owned(),
        host_path: host.to_str().unwrap().to_owned(),
        readonly: true,
    }
}

async fn of(mounts: &[Mount]) -> Option<String> {
    service_account::of(mounts, &pod()).await
}

#[tokio::test]
async fn the_account_is_read_from_the_volume_of_the_pod() {
    let kubelet = TempDir::new().unwrap();
    let volume = volume(&kubelet, UID, "kubernetes.io~projected");
    write(&volume, &token("shop", "payments", UID));
    let other = Mount {
        container_path: "/data".to_owned(),
        ..mount(Path::new("/srv"))
    };
    assert_eq!(
        of(&[other.clone(), mount(&volume)]).await.unwrap(),
        "payments"
    );
    assert_eq!(of(&[other]).await, None);
    // Over each other: which one the container sees is not known.
    assert_eq!(of(&[mount(&volume), mount(&volume)]).await, None);
}

#[tokio::test]
async fn a_token_that_a_container_could_write_is_not_believed() {
    let kubelet = TempDir::new().unwrap();
    for (uid, kind) in [
        (UID, "kubernetes.io~empty-dir"),
        (
            "99999999-2222-3333-4444-555555555555",
            "kubernetes.io~projected",
        ),
    ] {
        let volume = volume(&kubelet, uid, kind);
        write(&volume, &token("shop", "admin", UID));
        assert_eq!(of(&[mount(&volume)]).await, None, "{kind}");
    }
    let volume = volume(&kubelet, UID, "kubernetes.io~projected");
    write(&volume, &token("shop", "payments", UID));
    let mut writable = mount(&volume);
    writable.readonly = false;
    assert_eq!(of(&[writable]).await, None);
    let mut around = mount(&volume);
    around.host_path = around.host_path.replace("/volumes/", "/x/../volumes/");
    assert_eq!(of(&[around]).await, None);
    let mut relative = mount(&volume);
    let _slash = relative.host_path.remove(0);
    assert_eq!(of(&[relative]).await, None);
}

#[tokio::test]
async fn a_token_of_another_namespace_or_pod_is_not_believed() {
    for (namespace, uid) in [("kube-system", UID), ("shop", "99999999")] {
        let kubelet = TempDir::new().unwrap();
        let volume = volume(&kubelet, UID, "kubernetes.io~projected");
        write(&volume, &token(namespace, "admin", uid));
        assert_eq!(of(&[mount(&volume)]).await, None, "{namespace} {uid}");
    }
}

#[tokio::test]
async fn what_is_no_token_is_none() {
    let good = token("shop", "payments", UID);
    let [head, payload, _] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    for bad in [
        String::new(),
        "..".to_owned(),
        payload.to_owned(),
        format!("{head}.{payload}"),
        format!("{head}.!!!.x"),
        format!("{head}.{}.x", URL_SAFE_NO_PAD.encode("{}")),
        format!("{head}.{}.x", URL_SAFE_NO_PAD.encode([0xff; 20])),
        format!("{good}{}", "x".repeat(40 << 10)),
    ] {
        let kubelet = TempDir::new().unwrap();
        let volume = volume(&kubelet, UID, "kubernetes.io~projected");
        write(&volume, &bad);
        assert_eq!(of(&[mount(&volume)]).await, None, "{bad:.80}");
    }
}

#[tokio::test]
async fn a_link_out_of_the_volume_or_a_pipe_is_not_read() {
    let kubelet = TempDir::new().unwrap();
    let volume = volume(&kubelet, UID, "kubernetes.io~projected");
    assert_eq!(of(&[mount(&volume)]).await, None, "no token yet");
    let secret = kubelet.path().join("token");
    fs::write(&secret, token("shop", "admin", UID)).unwrap();
    symlink(&secret, volume.join("token")).unwrap();
    assert_eq!(of(&[mount(&volume)]).await, None);
    fs::remove_file(volume.join("token")).unwrap();
    mkfifo(&volume.join("token"), Mode::S_IRWXU).unwrap();
    assert_eq!(of(&[mount(&volume)]).await, None);
}
