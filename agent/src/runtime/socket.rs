//! A connection to a runtime, made only if the socket and who serves it are root's.

use std::{
    fs::OpenOptions,
    io::ErrorKind,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

use tokio::net::UnixStream;

use super::ask::Miss;

/// Connects to the socket file that was checked, whatever stands at its path afterwards.
pub(super) async fn open(path: &Path, owner: u32) -> Result<UnixStream, Miss> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)
        .map_err(|error| {
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
                return Miss::NotThere("no such socket".to_owned());
            }
            Miss::Failed(format!("the socket can't be looked at: {error}"))
        })?;
    let metadata = file
        .metadata()
        .map_err(|error| Miss::Failed(format!("the socket can't be looked at: {error}")))?;
    if !metadata.file_type().is_socket() {
        return Err(Miss::Failed("this is not a socket".to_owned()));
    }
    if metadata.uid() != owner {
        return Err(not_trusted("the socket", metadata.uid(), owner));
    }
    // Through the descriptor: another file may have taken the path.
    let stream = UnixStream::connect(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .await
        .map_err(|error| Miss::Failed(format!("no connection, is the runtime running? {error}")))?;
    let peer = stream
        .peer_cred()
        .map_err(|error| Miss::Failed(format!("nobody knows who serves the socket: {error}")))?;
    if peer.uid() != owner {
        return Err(not_trusted("who serves the socket", peer.uid(), owner));
    }
    Ok(stream)
}

fn not_trusted(what: &str, uid: u32, owner: u32) -> Miss {
    Miss::Failed(format!(
        "{what} is user {uid}, and only user {owner} is believed"
    ))
}
