//! Documents of a directory: every `*.toml` that is not hidden, ordered by name.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use ringfence_policy::model::Document;
use ringfence_proto::limits;

use super::StoreError;

/// Reads all documents; a document is named by its file name.
///
/// # Errors
/// A directory without documents, and everything that cannot be read or is too large: nothing is left out silently.
pub fn read(directory: &Path) -> Result<Vec<Document>, StoreError> {
    let failed = |path: &Path, error: io::Error| StoreError::Read {
        path: path.to_owned(),
        error,
    };
    let mut documents = Vec::new();
    let mut bytes = 0;
    for entry in fs::read_dir(directory).map_err(|error| failed(directory, error))? {
        let entry = entry.map_err(|error| failed(directory, error))?;
        let path = entry.path();
        let name = entry.file_name();
        let hidden = name.as_encoded_bytes().starts_with(b".");
        if hidden || path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let refused = |reason| StoreError::Document {
            path: path.clone(),
            reason,
        };
        let name = name
            .into_string()
            .ok()
            .filter(|name| limits::is_document_name(name))
            .ok_or_else(|| refused("the name is not printable UTF-8"))?;
        // Symbolic links are followed: that is how Kubernetes mounts a ConfigMap.
        let metadata = fs::metadata(&path).map_err(|error| failed(&path, error))?;
        if !metadata.is_file() {
            return Err(refused("it is not a regular file"));
        }
        let text = read_text(&path).map_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                refused("it is not UTF-8 text")
            } else {
                failed(&path, error)
            }
        })?;
        bytes += text.len();
        documents.push(Document { name, text });
        if bytes > limits::MAX_UPDATE_BYTES || documents.len() > limits::MAX_DOCUMENTS {
            return Err(StoreError::TooLarge {
                documents: documents.len(),
                bytes,
            });
        }
    }
    if documents.is_empty() {
        return Err(StoreError::Empty(directory.to_owned()));
    }
    documents.sort_unstable();
    Ok(documents)
}

/// At most one byte more than is allowed: the caller counts.
fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let limit = limits::MAX_UPDATE_BYTES as u64 + 1;
    let _length = fs::File::open(path)?
        .take(limit)
        .read_to_string(&mut text)?;
    Ok(text)
}
