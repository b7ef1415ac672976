//! The unix socket: made so that nobody else can connect, and never taken from a live agent.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    time::timeout,
};
use tonic::{Request, Status};

use super::{ApiError, connection::Peer};

/// How long to wait for another agent to accept; one that does not is alive all the same.
const ANSWER: Duration = Duration::from_secs(1);

/// A socket that accepts connections; they wait until [`super::serve`] takes it.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    name: Name,
}

/// The name of a socket, which goes with it unless it is another's by then.
#[derive(Debug)]
pub(super) struct Name {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for Name {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| inode(&found) == self.inode) {
            remove(&self.path);
        }
    }
}

impl Listener {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.name.path
    }

    pub(super) fn into_parts(self) -> (UnixListener, Name) {
        (self.socket, self.name)
    }
}

/// Makes the socket with mode 0600 in a directory with mode 0755 (made if absent). A socket that nobody
/// answers on is replaced.
///
/// # Errors
/// Another agent answers, something else stands there, or the socket can't be made.
pub async fn bind(path: &Path) -> Result<Listener, ApiError> {
    let failed = |source| ApiError::Bind {
        path: path.to_owned(),
        source,
    };
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(failed)?;
    }
    refuse_live(path).await?;
    // Made under another name, so that it never stands at its path with other rights, and moved over a
    // stale one in a single step.
    let fresh = path.with_extension(format!("{}", std::process::id()));
    let _stale = fs::remove_file(&fresh);
    let socket = UnixListener::bind(&fresh).map_err(failed)?;
    let placed = fs::set_permissions(&fresh, Permissions::from_mode(0o600))
        .and_then(|()| fs::symlink_metadata(&fresh))
        .and_then(|made| fs::rename(&fresh, path).map(|()| inode(&made)));
    match placed {
        Ok(inode) => Ok(Listener {
            socket,
            name: Name {
                path: path.to_owned(),
                inode,
            },
        }),
        Err(source) => {
            remove(&fresh);
            Err(failed(source))
        }
    }
}

fn inode(found: &fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// Removes the socket; it may be gone already.
fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "the socket could not be removed");
    }
}

/// Lets root and the user of this process pass.
pub(super) fn check_peer(request: Request<()>) -> Result<Request<()>, Status> {
    let peer = request.extensions().get::<Peer>().and_then(|peer| peer.uid);
    if permitted(peer, nix::unistd::geteuid().as_raw()) {
        return Ok(request);
    }
    let who = peer.map_or_else(|| "an unknown user".to_owned(), |uid| format!("user {uid}"));
    Err(Status::permission_denied(format!(
        "{who} may not use the agent's socket; run the command as root (sudo)"
    )))
}

pub(super) fn permitted(peer: Option<u32>, own: u32) -> bool {
    peer.is_some_and(|uid| uid == 0 || uid == own)
}

async fn refuse_live(path: &Path) -> Result<(), ApiError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ApiError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
        Err(_) => return Ok(()),
    }
    let pid = match timeout(ANSWER, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => stream.peer_cred().ok().and_then(|peer| peer.pid()),
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => return Ok(()),
        Ok(Err(source)) => {
            return Err(ApiError::Bind {
                path: path.to_owned(),
                source,
            });
        }
        Err(_elapsed) => None,
    };
    Err(ApiError::InUse {
        path: path.to_owned(),
        pid,
    })
}
