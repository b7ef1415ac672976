//! Files of the state directory that must be whole or not believed.
//!
//! A header line, the SHA-256 of everything after the second line, then JSON. Written to a temporary file,
//! synced and renamed: there is the old one or the new one.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use ringfence_proto::limits;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// JSON may escape every byte of a policy into six.
const MAX_BYTES: u64 = 8 * limits::MAX_UPDATE_BYTES as u64;

/// One kind of file.
#[derive(Clone, Copy, Debug)]
pub struct Seal {
    /// Its name.
    pub file: &'static str,
    /// Its first line.
    pub header: &'static str,
}

/// What is wrong with a file; what follows from that is the caller's to say.
#[derive(Debug, Error)]
pub enum SealError {
    /// It cannot be read.
    #[error("cannot read {file}: {error}", file = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is damaged.
    #[error("{file} is damaged ({reason})", file = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It cannot be written.
    #[error("cannot write {file}: {error}", file = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Seal {
    /// Replaces the file.
    ///
    /// # Errors
    /// The directory cannot be written; the old file is then still whole.
    pub fn save(&self, dir: &Path, body: &impl Serialize) -> Result<(), SealError> {
        let path = dir.join(self.file);
        self.write(dir, &path, body)
            .map_err(|error| SealError::Write { path, error })
    }

    /// Reads the file, as `judge` makes sense of its body; `None` when there is none.
    ///
    /// # Errors
    /// The file cannot be read, is not what [`Self::save`] wrote, or `judge` refused it.
    pub fn load<B: DeserializeOwned, T>(
        &self,
        dir: &Path,
        judge: impl FnOnce(B) -> Result<T, String>,
    ) -> Result<Option<T>, SealError> {
        let path = dir.join(self.file);
        let mut bytes = Vec::new();
        let read =
            File::open(&path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SealError::Read { path, error }),
        }
        match self.open(&bytes).and_then(judge) {
            Ok(content) => Ok(Some(content)),
            Err(reason) => Err(SealError::Damaged { path, reason }),
        }
    }

    /// The body, if it is whole.
    pub(crate) fn open<B: DeserializeOwned>(&self, bytes: &[u8]) -> Result<B, String> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(format!("larger than {MAX_BYTES} bytes"));
        }
        let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
        if parts.next() != Some(self.header.as_bytes()) {
            return Err(format!("the first line is not {:?}", self.header));
        }
        let (Some(sum), Some(body)) = (parts.next(), parts.next()) else {
            return Err("cut off in its head".into());
        };
        if sum != hex(body).as_bytes() {
            return Err("the checksum does not match: changed or cut off".into());
        }
        serde_json::from_slice(body).map_err(|error| error.to_string())
    }

    fn write(&self, dir: &Path, path: &Path, body: &impl Serialize) -> io::Result<()> {
        let temporary = dir.join(format!(".{}.new", self.file));
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let body = serde_json::to_vec(body)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        let written = file
            .write_all(format!("{}\n{}\n", self.header, hex(&body)).as_bytes())
            .and_then(|()| file.write_all(&body))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&temporary, path));
        if let Err(error) = written {
            // Best effort: what matters is the first error.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        File::open(dir)?.sync_all()
    }
}

/// SHA-256 as text.
pub(crate) fn hex(body: &[u8]) -> String {
    Sha256::digest(body)
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}
