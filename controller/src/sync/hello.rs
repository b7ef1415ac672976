//! The first message of an agent, and whether it may say it.

use std::{sync::Arc, time::Duration};

use ringfence_proto::{
    limits,
    v1::{Hello, SyncRequest, sync_request::Request},
};
use rustls_pki_types::ServerName;
use tokio::time::timeout;
use tonic::{Status, Streaming, transport::CertificateDer};
use webpki::EndEntityCert;

/// What a TLS peer showed, its own certificate first.
pub(super) type Certificates = Arc<Vec<CertificateDer<'static>>>;

const PATIENCE: Duration = Duration::from_secs(10);

/// Receives and checks it; `certificates` is `None` where they do not matter.
pub(super) async fn receive(
    incoming: &mut Streaming<SyncRequest>,
    certificates: Option<&Vec<CertificateDer<'static>>>,
) -> Result<Hello, Status> {
    let first = timeout(PATIENCE, incoming.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no Hello"))??;
    let Some(Request::Hello(hello)) = first.and_then(|request| request.request) else {
        return Err(Status::invalid_argument("the first message is not Hello"));
    };
    if !limits::is_name(&hello.host) || hello.version.len() > limits::MAX_NAME_BYTES {
        return Err(Status::invalid_argument(
            "host is empty, longer than 255 bytes or not printable, or version is longer than that",
        ));
    }
    if let Some(certificates) = certificates
        && !names(certificates, &hello.host)
    {
        return Err(Status::permission_denied(format!(
            "the certificate does not name host {:?}: issue it with this DNS name, or set verify-host = false in [tls] of \
             the controller",
            hello.host
        )));
    }
    Ok(hello)
}

/// Whether the agent's certificate, which TLS has verified, names the host.
fn names(certificates: &[CertificateDer<'static>], host: &str) -> bool {
    let Some(certificate) = certificates.first() else {
        return false;
    };
    let Ok(name) = ServerName::try_from(host) else {
        return false;
    };
    EndEntityCert::try_from(certificate)
        .is_ok_and(|certificate| certificate.verify_is_valid_for_subject_name(&name).is_ok())
}
