//! The client of the Docker Engine API.

use std::{os::unix::fs::PermissionsExt as _, time::Instant};

use super::{
    fake::{Fake, http, no_such_container},
    *,
};

/// Recorded from podman 4.3.1 (`podman system service`): a container of an imported image.
const PODMAN: &str = include_str!("../fixtures/podman.json");
const PODMAN_ID: &str = "d9df450bc31c9c8dfb915acaa0c6121b5c270345fc8690a74d160a4beed79adc";
/// Recorded from podman 4.3.1: the image of that container.
const PODMAN_IMAGE: &str = include_str!("../fixtures/podman-image.json");
/// Recorded from podman 4.3.1: a container of a root directory, without image (`--rootfs`).
const ROOTFS: &str = include_str!("../fixtures/podman-rootfs.json");
const ROOTFS_ID: &str = "1b6c45d73c54867f2a3d6ba36ed2569bb515893e5a62ced77ca616b2f9c2e921";
/// Recorded from docker 20.10.24 (`GET /containers/ID/json`): a container of an image that is in two registries.
pub const DOCKER: &str = include_str!("../fixtures/docker.json");
pub const DOCKER_ID: &str = "53393d078ead326c6e033a356eaa2c955b743acbcde37921e03681fb289cdaa1";
pub const DOCKER_PID: u32 = 19038;
/// Recorded from the same docker: that image.
pub const DOCKER_IMAGE: &str = include_str!("../fixtures/docker-image.json");

/// Has the container, its image if there is one, and nothing else.
pub fn serving(container: &str, image: &str) -> impl Fn(&str) -> Vec<u8> + use<> {
    let (container, image) = (container.to_owned(), image.to_owned());
    let id = container.split('"').nth(3).unwrap().to_owned();
    move |target| {
        if target == format!("/containers/{id}/json") {
            http("200 OK", &container)
        } else if target.starts_with("/images/sha256:") && !image.is_empty() {
            http("200 OK", &image)
        } else {
            no_such_container()
        }
    }
}

/// The answer to one question to a server that answers everything alike.
async fn told(answer: Vec<u8>) -> Outcome {
    let fake = Fake::raw(move |_| answer.clone());
    outcome(named(&[fake.path()], &[]), DOCKER_ID).await
}

/// A container of docker whose JSON was changed.
async fn changed(from: &str, to: &str) -> Outcome {
    assert!(DOCKER.contains(from), "{from}");
    told(http("200 OK", DOCKER.replacen(from, to, 1))).await
}

#[tokio::test]
async fn a_container_of_podman_is_known_by_name_labels_and_image() {
    let fake = Fake::raw(serving(PODMAN, PODMAN_IMAGE));
    let (pid, known) = found(outcome(named(&[fake.path()], &[]), PODMAN_ID).await);
    assert_eq!(pid, 2251);
    let expected = [
        ("container.name", "two"),
        ("container.image", "localhost/busy:1"),
        (
            "container.image-digest",
            "sha256:24082bcd735ab288cce7cc15510f04a8523590e14dcf8f145de3539a0a1401ee",
        ),
        ("container.label.app", "web"),
    ];
    assert_eq!(known, facts(&expected));
}

#[tokio::test]
async fn a_container_of_podman_without_image_has_none() {
    let fake = Fake::raw(serving(ROOTFS, ""));
    let (pid, known) = found(outcome(named(&[fake.path()], &[]), ROOTFS_ID).await);
    assert_eq!(pid, 2149);
    let expected = [
        ("container.name", "one"),
        ("container.label.app", "web"),
        ("container.label.com.example/x", "1"),
    ];
    assert_eq!(known, facts(&expected));
}

#[tokio::test]
async fn a_container_of_docker_has_the_digest_of_the_name_it_was_started_with() {
    let expected = facts(&[
        ("container.name", "shop-web-1"),
        ("container.image", "127.0.0.1:5000/shop/web:2.1"),
        ("container.label.com.docker.compose.project", "shop"),
        ("container.label.com.docker.compose.service", "web"),
        ("container.label.maintainer", "shop team"),
    ]);
    let digest = "sha256:0fd3642aebcf00636b20e0efaf16a123c172304c1771edee8f80920476c2bac0";
    let others = format!("sha256:{}", "2".repeat(64));
    let mirrored = format!("localhost:5000/mirror/web@{digest}");
    let elsewhere = format!("localhost:5000/mirror/web@{others}");
    assert!(DOCKER_IMAGE.contains(&mirrored));
    for (image, digest) in [
        (DOCKER_IMAGE.to_owned(), Some(digest)),
        (DOCKER_IMAGE.replace(&mirrored, &elsewhere), Some(digest)),
        (String::new(), None),
    ] {
        let fake = Fake::raw(serving(DOCKER, &image));
        let (pid, mut known) = found(outcome(named(&[fake.path()], &[]), DOCKER_ID).await);
        assert_eq!(pid, DOCKER_PID);
        let found = known.remove("container.image-digest");
        assert_eq!(found.as_deref(), digest);
        assert_eq!(known, expected);
    }
}

#[tokio::test]
async fn a_container_that_does_not_run_has_no_process() {
    let outcome = changed(&format!("\"Pid\":{DOCKER_PID}"), "\"Pid\":0").await;
    // The image's request has the same answer, which is no image's, and holds no digests.
    assert_eq!(found(outcome).0, 0);
}

#[tokio::test]
async fn an_unknown_id_is_absent() {
    let fake = Fake::raw(serving(PODMAN, PODMAN_IMAGE));
    let mut asker = Asker::new(named(&[fake.path()], &[]));
    assert_eq!(asker.ask(OTHER).await, Outcome::Absent);
    assert_eq!(asker.states(), [State::Ok]);
}

#[tokio::test]
async fn a_container_that_is_only_called_like_the_id_is_not_believed() {
    let outcome = told(http("200 OK", PODMAN)).await;
    assert_failed(&outcome, "about another container");
}

#[tokio::test]
async fn what_is_no_answer_is_a_failure() {
    for (answer, why) in [
        (
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(),
            "the connection broke",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec(),
            "can't be read",
        ),
        (http("200 OK", ""), "can't be read"),
        (http("200 OK", b"\xff\xfe{}"), "can't be read"),
        (http("200 OK", "[[[["), "can't be read"),
        (http("200 OK", "{\"Id\":7}"), "can't be read"),
        (
            http("500 Internal Server Error", "{\"message\":\"\u{1b}[31m\"}"),
            "the answer is 500",
        ),
        (http("301 Moved Permanently", ""), "the answer is 301"),
    ] {
        let shown = String::from_utf8_lossy(&answer).into_owned();
        let outcome = told(answer).await;
        assert_failed(&outcome, why);
        let Outcome::Failed(text) = outcome else {
            continue;
        };
        assert!(!text.contains('\u{1b}'), "{shown}: {text}");
        assert!(text.contains("runtime.sock: "), "{text}");
    }
    for pid in ["-1", "99999999999", "\"1\"", "null"] {
        let outcome = changed(&format!("\"Pid\":{DOCKER_PID}"), &format!("\"Pid\":{pid}")).await;
        assert_failed(&outcome, "can't be read");
    }
}

#[tokio::test]
async fn a_huge_answer_is_cut_off() {
    let announced = http("200 OK", vec![b' '; (4 << 20) + 1]);
    assert_failed(&told(announced).await, "can't be read");
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20)).repeat(8);
    let endless = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
    assert_failed(&told(endless.into_bytes()).await, "can't be read");
    let head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    assert_failed(&told(head.into_bytes()).await, "the connection broke");
}

#[tokio::test]
async fn a_flood_of_labels_is_refused_and_a_document_in_a_label_is_left_out() {
    let labels = "\"Labels\":{";
    let flood: Vec<_> = (0..600).map(|n| format!("\"l{n}\":\"\",")).collect();
    let flood = flood.concat();
    let outcome = changed(labels, &format!("{labels}{flood}")).await;
    assert_failed(&outcome, "603 labels");
    let long = format!(
        "{labels}\"doc\":\"{}\",\"{}\":\"\",\"empty\":\"\",",
        "x".repeat(5000),
        "k".repeat(600)
    );
    let (_, known) = found(changed(labels, &long).await);
    let labels: Vec<_> = known
        .keys()
        .filter_map(|key| key.strip_prefix("container.label."))
        .collect();
    let expected = [
        "com.docker.compose.project",
        "com.docker.compose.service",
        "empty",
        "maintainer",
    ];
    assert_eq!(labels, expected);
}

#[tokio::test]
async fn a_runtime_that_stalls_fails_after_the_deadline() {
    let fake = Fake::raw(|_| Vec::new());
    let began = Instant::now();
    let outcome = outcome(named(&[fake.path()], &[]), OTHER).await;
    assert_failed(&outcome, "no answer within 2 s");
    assert!(began.elapsed().as_secs() >= 2);
}

#[tokio::test]
async fn a_socket_that_is_not_of_the_owner_is_not_asked() {
    let fake = Fake::raw(|target| panic!("asked for {target}"));
    let mut settings = named(&[fake.path()], &[]);
    settings.owner = own() + 1;
    let mut asker = Asker::new(settings);
    let why = format!("the socket is user {}, and only user {}", own(), own() + 1);
    assert_failed(&asker.ask(OTHER).await, &why);
    let states = asker.states();
    assert!(
        matches!(states.as_slice(), [State::Failed(text)] if text.starts_with("the socket is user")),
        "{states:?}"
    );
}

#[tokio::test]
async fn what_is_no_socket_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let outcome = outcome(well_known(&[&file], &[]), OTHER).await;
    assert_failed(&outcome, "this is not a socket");
}
