//! `check`: the same judgement as at the start, without state or sockets.

use std::{
    io::{self, Write as _},
    path::Path,
};

use anyhow::Result;
use ringfence_documents::Naming;
use ringfence_policy::parse::{lint, parse};
use ringfence_proto::text;
use time::OffsetDateTime;

use crate::{config::Config, listen, store::StoreError};

pub(super) fn run(path: &Path) -> Result<()> {
    let config = Config::load(path)?;
    if let Some(tls) = &config.tls {
        drop(listen::tls::acceptor(tls)?);
    }
    let documents = ringfence_documents::read(&config.policy_dir, Naming::File)
        .map_err(StoreError::Documents)?;
    let set = parse(&documents).map_err(StoreError::Invalid)?;
    let mut out = io::stdout().lock();
    for warning in lint(&set, OffsetDateTime::now_utc()) {
        writeln!(out, "warning: {}", text::clean(&warning.to_string()))?;
    }
    writeln!(
        out,
        "valid: {}, {}, {} in {}",
        text::counted(documents.len(), "document", "documents"),
        text::counted(set.workloads.len(), "workload", "workloads"),
        text::counted(set.policies.len(), "policy", "policies"),
        config.policy_dir.display()
    )?;
    Ok(())
}
