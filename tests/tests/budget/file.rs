//! `tests/budget.toml`: the figures that were accepted.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde::{Deserialize, Serialize};

const HEAD: &str = "# Written by `cargo xtask test --bless-budget`; why a figure rose stands in the message of the commit that \
                    raised it.\n\
                    # Instructions, verified instructions and memory hold for this series of kernels and number of\n\
                    # processors; bytes of stack hold everywhere.\n";

/// All of it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    pub kernel: String,
    pub processors: usize,
    pub programs: BTreeMap<String, Program>,
    /// Bytes.
    pub maps: BTreeMap<String, u64>,
}

/// Of one program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    pub instructions: u32,
    pub verified: u32,
    pub stack: u32,
}

impl Budget {
    /// As committed.
    pub fn read() -> Self {
        let text = fs::read_to_string(path()).unwrap();
        toml::from_str(&text).unwrap()
    }

    /// Accepts.
    pub fn write(&self) {
        let text = toml::to_string(self).unwrap();
        fs::write(path(), format!("{HEAD}{text}")).unwrap();
    }
}

fn path() -> PathBuf {
    std::env::var_os("RINGFENCE_BUDGET").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("budget.toml"),
        PathBuf::from,
    )
}
