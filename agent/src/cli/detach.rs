//! `ringfence detach`: the host is no longer guarded, and what of it was removed.

use std::{collections::BTreeMap, path::Path};

use ringfence_proto::text::counted;
use serde_json::{Value, json};

use super::{
    CliError,
    args::{DetachArgs, Format},
    output::Output,
    words,
};
use crate::{
    config,
    datapath::detach::{self, Detached, Hook, Version},
};

pub(super) fn run(args: &DetachArgs, output: &mut Output) -> Result<(), CliError> {
    let (pin_dir, state_dir) = if let Some(pin_dir) = &args.pin_dir {
        (pin_dir.clone(), None)
    } else {
        let config = config::load(&args.config).map_err(CliError::DetachConfig)?;
        (config.agent.pin_dir, Some(config.agent.state_dir))
    };
    let detached = detach::detach(&pin_dir, state_dir.as_deref())?;
    write(&pin_dir, &detached, output)
}

pub(super) fn write(
    pin_dir: &Path,
    detached: &Detached,
    output: &mut Output,
) -> Result<(), CliError> {
    match output.format_or(Format::Table) {
        Format::Json => return output.json(&value(pin_dir, detached)),
        Format::Table => output.line(&headline(pin_dir, detached))?,
        Format::Compact => {}
    }
    let rows = detached.versions.iter().flat_map(rows).collect::<Vec<_>>();
    if !rows.is_empty() {
        output.table(&["VERSION", "CGROUP", "HOOKS", "MAPS"], rows)?;
    }
    if output.format_or(Format::Table) == Format::Table {
        for path in &detached.left {
            let path = words::clean(&path.display().to_string());
            output.line(&format!("Left, because it is not Ringfence's: {path}"))?;
        }
    }
    Ok(())
}

fn headline(pin_dir: &Path, detached: &Detached) -> String {
    let directory = words::clean(&pin_dir.display().to_string());
    let hooks: usize = detached.versions.iter().map(|it| it.hooks.len()).sum();
    let maps: usize = detached.versions.iter().map(|it| it.maps.len()).sum();
    if hooks + maps == 0 {
        return format!("Nothing to remove: no hooks and maps are pinned below {directory}");
    }
    let hooks = counted(hooks, "hook", "hooks");
    let maps = counted(maps, "map", "maps");
    format!("Enforcement has ended: {hooks} and {maps} removed below {directory}")
}

/// One for each cgroup; the maps stand in the first.
fn rows(version: &Version) -> Vec<Vec<String>> {
    let mut cgroups = BTreeMap::<String, Vec<&str>>::new();
    for hook in &version.hooks {
        cgroups.entry(place(hook)).or_default().push(&hook.name);
    }
    if cgroups.is_empty() {
        let _ = cgroups.insert(String::new(), Vec::new());
    }
    let mut maps = version.maps.len().to_string();
    cgroups
        .into_iter()
        .map(|(cgroup, hooks)| {
            vec![
                format!("v{}", version.number),
                cgroup,
                hooks.join(", "),
                std::mem::take(&mut maps),
            ]
        })
        .collect()
}

fn place(hook: &Hook) -> String {
    match &hook.cgroup {
        Some(path) => words::clean(&path.display().to_string()),
        None if hook.cgroup_id == 0 => "gone".to_owned(),
        None => format!("cgroup {}", hook.cgroup_id),
    }
}

fn value(pin_dir: &Path, detached: &Detached) -> Value {
    let versions = detached.versions.iter().map(|version| {
        let hooks = version.hooks.iter().map(|hook| {
            json!({
                "name": hook.name,
                "cgroup_id": hook.cgroup_id,
                "cgroup": hook.cgroup,
            })
        });
        json!({
            "version": version.number,
            "hooks": hooks.collect::<Vec<_>>(),
            "devices": version.devices,
            "maps": version.maps,
        })
    });
    json!({
        "pin_dir": pin_dir,
        "versions": versions.collect::<Vec<_>>(),
        "left": detached.left,
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn hook(name: &str, cgroup_id: u64, cgroup: Option<&str>) -> Hook {
        Hook {
            name: name.to_owned(),
            cgroup_id,
            cgroup: cgroup.map(PathBuf::from),
        }
    }

    #[test]
    fn each_cgroup_has_a_row_and_the_maps_of_a_version_stand_once() {
        let version = Version {
            number: 2,
            hooks: vec![
                hook("egress", 7, Some("/sys/fs/cgroup")),
                hook("ops", 0, None),
                hook("ingress", 7, Some("/sys/fs/cgroup")),
                hook("bind4", 9, None),
            ],
            devices: 1,
            maps: vec!["ACTIVE".to_owned(), "RULES".to_owned()],
        };
        let cells = |row: [&str; 4]| row.map(str::to_owned).to_vec();
        assert_eq!(
            rows(&version),
            [
                cells(["v2", "/sys/fs/cgroup", "egress, ingress", "2"]),
                cells(["v2", "cgroup 9", "bind4", ""]),
                cells(["v2", "gone", "ops", ""]),
            ]
        );
        let pins = Path::new("/pins");
        let detached = Detached {
            versions: vec![version],
            left: vec!["/pins/theirs".into()],
        };
        assert_eq!(
            headline(pins, &detached),
            "Enforcement has ended: 4 hooks and 2 maps removed below /pins"
        );
        let value = value(pins, &detached);
        assert_eq!(
            value.pointer("/versions/0/hooks/3/cgroup_id"),
            Some(&json!(9))
        );
        assert_eq!(
            value.pointer("/versions/0/hooks/3/cgroup"),
            Some(&Value::Null)
        );
        assert_eq!(value.pointer("/left"), Some(&json!(["/pins/theirs"])));
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        let pins = Path::new("/pins");
        let text = headline(pins, &Detached::default());
        assert_eq!(
            text,
            "Nothing to remove: no hooks and maps are pinned below /pins"
        );
    }
}
