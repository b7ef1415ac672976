//! Errors of the configuration.

use std::{
    fmt::{self, Display, Formatter},
    io,
    path::{Path, PathBuf},
};

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
    #[error("{}", list(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All that is wrong, in the order of lines; never empty.
        problems: Vec<Problem>,
    },
}

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl Display for Problem {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.line, self.message)
    }
}

fn list(path: &Path, problems: &[Problem]) -> String {
    let line = |problem: &Problem| format!("{}:{problem}", path.display());
    let lines: Vec<String> = problems.iter().map(line).collect();
    lines.join("\n")
}
