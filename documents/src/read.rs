//! Documents of a directory: every `*.toml` that is not hidden, ordered by name.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use ringfence_policy::model::Document;
use ringfence_proto::limits;

use super::ReadError;

/// How often a directory is listed again because a file of the list was gone.
const ATTEMPTS: usize = 4;

/// What a document is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// The name of its file: what travels to other hosts.
    File,
    /// Its path, as the directory was named: what an operator can open.
    Path,
}

/// Reads all documents of a directory.
///
/// # Errors
/// A directory without documents, and everything that cannot be read or is too large: nothing is left out silently.
pub fn read(directory: &Path, naming: Naming) -> Result<Vec<Document>, ReadError> {
    let mut attempt = 1;
    loop {
        match read_once(directory, naming) {
            // Removed between listing and reading. A symbolic link that leads nowhere is still there.
            Err(ReadError::Unreadable { path, error })
                if attempt < ATTEMPTS
                    && error.kind() == io::ErrorKind::NotFound
                    && fs::symlink_metadata(&path).is_err() =>
            {
                attempt += 1;
            }
            result => return result,
        }
    }
}

/// Reads one document, named by its path.
///
/// # Errors
/// It cannot be read, is not a regular file or not text, or is too large.
pub fn read_file(path: &Path) -> Result<Document, ReadError> {
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::InvalidData {
            refused(path, "it is not UTF-8 text")
        } else {
            ReadError::Unreadable {
                path: path.to_owned(),
                error,
            }
        }
    };
    // Symbolic links are followed: that is how Kubernetes mounts a ConfigMap.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(refused(path, "it is not a regular file"));
    }
    let mut text = String::new();
    // One byte more than is allowed, to tell what is too large.
    let limit = limits::MAX_UPDATE_BYTES as u64 + 1;
    let _length = fs::File::open(path)
        .and_then(|file| file.take(limit).read_to_string(&mut text))
        .map_err(failed)?;
    if text.len() > limits::MAX_UPDATE_BYTES {
        return Err(ReadError::TooLarge(path.to_owned()));
    }
    Ok(Document {
        name: path.display().to_string(),
        text: text.into(),
    })
}

fn read_once(directory: &Path, naming: Naming) -> Result<Vec<Document>, ReadError> {
    let mut documents = Vec::new();
    let mut bytes = 0;
    for path in list(directory)? {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .filter(|name| limits::is_document_name(name))
            .ok_or_else(|| refused(&path, "the name is not printable UTF-8"))?;
        let mut document = read_file(&path)?;
        bytes += document.text.len();
        if naming == Naming::File {
            name.clone_into(&mut document.name);
        }
        documents.push(document);
        if bytes > limits::MAX_UPDATE_BYTES || documents.len() > limits::MAX_DOCUMENTS {
            return Err(ReadError::TooLarge(directory.to_owned()));
        }
    }
    if documents.is_empty() {
        return Err(ReadError::Empty(directory.to_owned()));
    }
    documents.sort_unstable();
    Ok(documents)
}

/// The files that are documents.
fn list(directory: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::NotFound {
            return ReadError::Missing(directory.to_owned());
        }
        ReadError::Unreadable {
            path: directory.to_owned(),
            error,
        }
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden
            && path
                .extension()
                .is_some_and(|extension| extension == "toml")
        {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn refused(path: &Path, reason: &'static str) -> ReadError {
    ReadError::Document {
        path: path.to_owned(),
        reason,
    }
}
