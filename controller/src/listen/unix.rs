//! A unix socket that only its owner can open, from its first moment on.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process,
};

use tokio::net::UnixListener;

use super::ListenError;

/// The name of a listening socket; it is removed on drop if it is still ours.
#[derive(Debug)]
pub struct UnixSocket {
    path: PathBuf,
    inode: (u64, u64),
}

impl UnixSocket {
    /// Listens with mode 0600. A socket on which nobody answers is replaced.
    ///
    /// # Errors
    /// Somebody answers there, something else has the name, or the directory is not to be had.
    pub fn bind(path: &Path) -> Result<(Self, UnixListener), ListenError> {
        free(path)?;
        let (listener, inode) = bind_private(path).map_err(|error| ListenError::Listen {
            address: format!("unix:{}", path.display()),
            error,
        })?;
        let socket = Self {
            path: path.to_owned(),
            inode,
        };
        Ok((socket, listener))
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| inode(&found) == self.inode) {
            // Best effort: the next controller replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether the name can be had.
fn free(path: &Path) -> Result<(), ListenError> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(_) | Err(_) => Err(ListenError::InUse(format!("unix:{}", path.display()))),
    }
}

/// Binds in a directory that nobody else can enter and moves the socket to its name: there is no moment at
/// which it has the mode that the umask gave it.
fn bind_private(path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(parent)?;
    let private = parent.join(format!(".rf-{}", process::id()));
    // Left behind by a controller that was killed here.
    let _ = fs::remove_dir_all(&private);
    DirBuilder::new().mode(0o700).create(&private)?;
    let result = bind_in(&private, path);
    let _ = fs::remove_dir_all(&private);
    result
}

fn bind_in(private: &Path, path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let socket = private.join("s");
    let listener = UnixListener::bind(&socket)?;
    fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
    let inode = inode(&fs::symlink_metadata(&socket)?);
    fs::rename(&socket, path)?;
    Ok((listener, inode))
}

fn inode(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use anyhow::Result;

    use super::{ListenError, UnixSocket};

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("run/sock");
        let (socket, listener) = UnixSocket::bind(&path)?;
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        let error = UnixSocket::bind(&path).err();
        assert!(matches!(error, Some(ListenError::InUse(_))), "{error:?}");
        drop(listener);
        // The first one's name is gone with it only while it is its own.
        let (second, _listener) = UnixSocket::bind(&path)?;
        drop(socket);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(dir.path().join("run"))?.count(), 0);
        Ok(())
    }

    #[tokio::test]
    async fn what_is_not_a_socket_stays() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("file");
        fs::write(&path, "precious")?;
        let error = UnixSocket::bind(&path).err();
        assert!(
            matches!(error, Some(ListenError::NotASocket(_))),
            "{error:?}"
        );
        assert_eq!(fs::read_to_string(&path)?, "precious");
        Ok(())
    }
}
