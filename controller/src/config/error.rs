//! Errors of the configuration.

use std::{fmt, io, path::PathBuf};

use thiserror::Error;

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {file}: {error}; name the file with --config", file = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Something in it is wrong.
    #[error("{file}:{line}: {message}", file = .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong, and what to write instead.
        message: String,
    },
}

impl ConfigError {
    /// An error at a byte of the text.
    pub(super) fn at(
        path: &std::path::Path,
        text: &str,
        byte: usize,
        message: impl fmt::Display,
    ) -> Self {
        let line = 1 + text
            .bytes()
            .take(byte)
            .filter(|byte| *byte == b'\n')
            .count();
        Self::Invalid {
            path: path.to_owned(),
            line,
            message: message.to_string(),
        }
    }
}
