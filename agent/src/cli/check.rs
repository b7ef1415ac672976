//! `ringfence agent --check`: the configuration, and the places on this host that it names.
//!
//! Looks with the code of the start and changes nothing. What only a start can show is left to it: sockets
//! that are in use, and what the kernel accepts.

use std::{io, path::Path};

use super::{CliError, block_on, note};
use crate::{
    config::{self, CgroupRoot, Config},
    datapath::mount,
    identity::root,
    sync,
};

/// Checks the configuration at `path` and everything it names.
pub(super) fn run(path: &Path) -> Result<(), CliError> {
    let config = config::load(path).map_err(CliError::Config)?;
    for warning in &config.warnings {
        note(&format!("warning: {warning}"));
    }
    let problems = problems(&config)?;
    if problems.is_empty() {
        return Ok(());
    }
    Err(CliError::Unusable {
        path: path.to_owned(),
        problems,
    })
}

/// All that would stop the agent on this host, each with its key.
fn problems(config: &Config) -> Result<Vec<String>, CliError> {
    let mut problems = Vec::new();
    let root = match &config.agent.cgroup_root {
        CgroupRoot::Auto => root::locate("auto"),
        CgroupRoot::Path(path) => root::locate(&path.to_string_lossy()),
    };
    if let Err(error) = root {
        problems.push(format!("[agent] cgroup-root: {error}"));
    }
    if let Err(error) = mount::check(&config.agent.pin_dir) {
        problems.push(format!("[agent] pin-dir: {error}"));
    }
    let directories = [
        ("[agent] state-dir", Some(config.agent.state_dir.as_path())),
        ("[api] unix", config.api_socket.parent()),
    ];
    for (key, directory) in directories {
        if let Some(problem) = directory.and_then(unmakeable) {
            problems.push(format!("{key}: {problem}"));
        }
    }
    if let Err(error) = config.agent.policy_dir.read_dir()
        && error.kind() != io::ErrorKind::NotFound
    {
        let path = config.agent.policy_dir.display();
        problems.push(format!(
            "[agent] policy-dir: {path}: {error}; name a readable directory"
        ));
    }
    if let Some(controller) = &config.controller {
        block_on(async {
            let checked = sync::check(controller).await;
            problems.extend(checked.err().map(|error| format!("[controller] {error}")));
            Ok(())
        })?;
    }
    Ok(problems)
}

/// Why a directory is not there and can't be made: what stands in its way.
fn unmakeable(directory: &Path) -> Option<String> {
    let nearest = directory.ancestors().find(|path| path.exists())?;
    let message = if !nearest.is_dir() {
        format!("{} is not a directory", nearest.display())
    } else if let Err(errno) = nix::unistd::access(nearest, nix::unistd::AccessFlags::W_OK) {
        format!("{}: {}", nearest.display(), io::Error::from(errno))
    } else {
        return None;
    };
    Some(format!(
        "{message}; name a directory that the agent may write to"
    ))
}
