//! `ringfence agent --check`: the configuration, the places on this host that it names, and what the kernel offers.
//!
//! Looks with the code of the start and changes nothing. What only a start can show is left to it: sockets
//! that are in use, and whether the kernel takes the programs.

use std::{io, os::unix::fs::FileTypeExt as _, path::Path};

use serde_json::json;

use super::{CliError, args::Format, block_on, note, output::Output, words};
use crate::{
    config::{self, CgroupRoot, Config},
    datapath::{features, mount},
    identity::root,
    sync,
};

/// Checks the configuration at `path`, everything it names and the kernel, and says what was checked.
pub(super) fn run(path: &Path, output: &mut Output) -> Result<(), CliError> {
    let config = config::load(path).map_err(CliError::Config)?;
    let warnings = warnings(&config);
    for warning in &warnings {
        note(&format!("warning: {warning}"));
    }
    let features = features::probe();
    let mut problems = problems(&config)?;
    let lacking = |required| {
        let absent = features.iter().filter(|feature| !feature.present);
        absent.filter(move |feature| feature.required == required)
    };
    problems.extend(lacking(true).map(|it| format!("this host: {}: {}", it.name, it.note)));
    if !problems.is_empty() {
        return Err(CliError::Unusable {
            path: path.to_owned(),
            problems,
        });
    }
    let checked = checked(path, &config);
    if output.format_or(Format::Table) == Format::Json {
        let features = features.iter().map(|feature| {
            json!({
                "name": feature.name,
                "present": feature.present,
                "required": feature.required,
            })
        });
        return output.json(&json!({
            "checked": checked,
            "features": features.collect::<Vec<_>>(),
            "warnings": warnings,
        }));
    }
    for what in &checked {
        output.line(&format!("ok: {}", words::clean(what)))?;
    }
    let present = features.iter().filter(|feature| feature.present);
    let present: Vec<&str> = present.map(|feature| feature.name).collect();
    output.line(&format!("ok: this host has {}", present.join(", ")))?;
    for feature in lacking(false) {
        output.line(&format!("absent: {}: {}", feature.name, feature.note))?;
    }
    output.line("not checked: sockets that are in use, and whether the kernel takes the programs")
}

/// What would not stop the agent: what the configuration says itself, and runtimes that do not listen now.
fn warnings(config: &Config) -> Vec<String> {
    let is_socket = |path: &Path| path.metadata().is_ok_and(|it| it.file_type().is_socket());
    let named = config.containers.named();
    let absent = named.filter(|(_, path)| !is_socket(path)).map(|(kind, path)| {
        format!(
            "[containers] {}: {} is no socket now; start the runtime or correct the path: while it does not answer, what \
             its containers do is held and then refused",
            kind.name(),
            path.display()
        )
    });
    config.warnings.iter().cloned().chain(absent).collect()
}

/// What is in order.
fn checked(path: &Path, config: &Config) -> Vec<String> {
    let root = match &config.agent.cgroup_root {
        CgroupRoot::Auto => "auto".into(),
        CgroupRoot::Path(path) => path.display().to_string(),
    };
    let mut checked = vec![
        format!("configuration {}", path.display()),
        format!("cgroup-root {root}"),
        format!("pin-dir {}", config.agent.pin_dir.display()),
        format!("state-dir {}", config.agent.state_dir.display()),
        format!("policy-dir {}", config.agent.policy_dir.display()),
        format!("socket {}", config.api_socket.display()),
    ];
    if config.controller.is_some() {
        checked.push("certificates of the controller".to_owned());
    }
    checked
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic fails the test")]

    use std::{fs, os::unix::net::UnixListener};

    use super::*;

    #[test]
    fn a_runtime_that_is_named_and_does_not_listen_is_warned_of() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        fs::write(
            &path,
            "[containers]\ndocker = [\"there.sock\", \"absent.sock\"]\ncri = [\"agent.toml\"]\n",
        )
        .unwrap();
        let _listener = UnixListener::bind(directory.path().join("there.sock")).unwrap();
        let config = config::load(&path).unwrap();
        let mut found = warnings(&config);
        found.retain(|warning| !config.warnings.contains(warning));
        found.sort();
        let [cri, docker] = found.as_slice() else {
            panic!("{found:?}");
        };
        for (line, key, name) in [
            (cri, "cri", "agent.toml"),
            (docker, "docker", "absent.sock"),
        ] {
            let path = directory.path().join(name);
            let expected = format!("[containers] {key}: {} is no socket now", path.display());
            assert!(line.starts_with(&expected), "{line}");
        }
    }
}
