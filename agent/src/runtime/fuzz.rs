//! Entrances for the fuzz targets.

use prost::Message as _;
use ringfence_proto::cri::{ContainerStatusResponse, PodSandboxStatusResponse};

use super::{cri, docker, service_account};

/// A container in JSON, and after a zero byte its image.
pub(crate) fn docker(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let container = parts.next().unwrap_or_default();
    docker::read_json(container, parts.next().unwrap_or_default());
}

/// Status of a container and of a sandbox, each with its length before it.
pub(crate) fn cri(mut bytes: &[u8]) {
    if let Ok(container) = ContainerStatusResponse::decode_length_delimited(&mut bytes) {
        let pod = PodSandboxStatusResponse::decode_length_delimited(&mut bytes);
        cri::read_answers(container, pod.unwrap_or_default());
    }
}

/// The token of a service account.
pub(crate) fn token(bytes: &[u8]) {
    let _read = service_account::claims(bytes);
}
