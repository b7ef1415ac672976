//! An entrance for the fuzz targets.

use prost::Message as _;
use ringfence_proto::v1::SyncResponse;

use super::verify::{built, verify};

/// What a controller sends: responses, each with its length before it. Each is judged against what the ones before it
/// amount to, whatever their checksums: bytes made at random never have the right one.
pub fn response(mut bytes: &[u8]) {
    let mut held = None;
    while let Ok(response) = SyncResponse::decode_length_delimited(&mut bytes) {
        let _verdict = verify(held.as_ref(), response.clone());
        let update = response.update;
        if let Some(policy) =
            update.and_then(|update| built(held.as_ref(), response.generation, update).ok())
        {
            held = Some(policy);
        }
    }
}
