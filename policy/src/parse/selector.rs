//! The `match` table of a workload.

mod container;

use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobSet};

use super::{
    report::{Fault, Report},
    suggest,
    table::{Table, Value, string},
};
use crate::model::Selector;

const KEYS: [&str; 13] = [
    "cgroup",
    "systemd-unit",
    "systemd-slice",
    "systemd-user-unit",
    "systemd-user-slice",
    "exe",
    "sha256",
    "user",
    "uid",
    "group",
    "gid",
    "container",
    "k8s",
];
const USER: Kind = Kind {
    number: "uid",
    name: "user",
    file: "/etc/passwd",
};
const GROUP: Kind = Kind {
    number: "gid",
    name: "group",
    file: "/etc/group",
};
const UNIT_TYPES: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];

/// What is chosen by name or by number: the keys, and where names stand.
#[derive(Clone, Copy)]
struct Kind {
    number: &'static str,
    name: &'static str,
    file: &'static str,
}

pub(super) fn read(report: &mut Report<'_>, table: &Table<'_, '_>) -> Vec<Selector> {
    let mut selectors = Vec::new();
    if table.keys().next().is_none() {
        report.error(
            &table.span,
            "`match` is empty",
            format!("add at least one selector: {}", KEYS.join(", ")),
        );
    }
    for (key, span, value) in table.keys() {
        if container::FAMILIES.contains(&key) {
            selectors.extend(container::read(report, key, value));
            continue;
        }
        if KEYS.contains(&key) {
            selectors.extend(selector(report, key, value));
            continue;
        }
        let family = key.split('.').next().unwrap_or(key);
        if family == "parent" {
            report.error(
                &span,
                "a process can't be selected by its parent: it becomes the child of another one when that ends, or as it likes",
                "say where it runs (`systemd-unit`, `cgroup`) or what it is (`exe`, `user`)",
            );
        } else if container::FAMILIES.contains(&family) {
            report.error(
                &span,
                format!("unknown selector `\"{key}\"`"),
                format!("write it without quotes: `{key} = \"...\"`"),
            );
        } else {
            report.error(
                &span,
                format!("unknown selector `{key}`"),
                suggest::remedy(key, &KEYS),
            );
        }
    }
    of_a_user(report, table, &selectors);
    selectors
}

/// Whoever may name units for himself must be said.
fn of_a_user(report: &mut Report<'_>, table: &Table<'_, '_>, selectors: &[Selector]) {
    let of_user = |it: &&Selector| {
        matches!(
            it,
            Selector::SystemdUserUnit(_) | Selector::SystemdUserSlice(_)
        )
    };
    let has_user = |it: &Selector| matches!(it, Selector::Uid(_) | Selector::User(_));
    if let Some(selector) = selectors.iter().find(of_user)
        && !selectors.iter().any(has_user)
    {
        report.error(
            &table.span,
            format!(
                "`{}` says nothing without a user: each names his units himself",
                selector.key()
            ),
            "add whose service manager it is: `user` or `uid`",
        );
    }
}

fn selector(report: &mut Report<'_>, key: &str, value: &Value<'_>) -> Option<Selector> {
    let read = if key == "uid" {
        number(value, USER).map(Selector::Uid)
    } else if key == "gid" {
        number(value, GROUP).map(Selector::Gid)
    } else {
        let text = string(report, value, key)?;
        match key {
            "cgroup" => cgroup(text),
            "systemd-unit" => unit(key, text).map(Selector::SystemdUnit),
            "systemd-slice" => slice(key, text).map(Selector::SystemdSlice),
            "systemd-user-unit" => unit(key, text).map(Selector::SystemdUserUnit),
            "systemd-user-slice" => slice(key, text).map(Selector::SystemdUserSlice),
            "exe" => exe(text),
            "sha256" => sha256(text),
            "group" => name(text, GROUP).map(Selector::Group),
            _ => name(text, USER).map(Selector::User),
        }
    };
    read.map_err(|fault| report.fault(&value.span(), fault))
        .ok()
}

fn cgroup(text: &str) -> Result<Selector, Fault> {
    let message = format!("cgroup {text:?} is not a path below the guarded cgroup");
    if !text.starts_with('/') {
        return Err(Fault::new(
            message,
            format!("start it with a slash: \"/{text}\""),
        ));
    }
    let inside = text.strip_prefix('/').unwrap_or(text);
    if !inside.is_empty()
        && inside
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."))
    {
        let remedy = "write it without empty parts, `.`, `..` and a slash at the end";
        return Err(Fault::new(message, remedy));
    }
    // That it can be compiled is tried here; who matches compiles all of them at once.
    let built = GlobBuilder::new(text).literal_separator(true).build();
    built
        .and_then(|glob| {
            let _compiled = GlobSet::builder().add(glob.clone()).build()?;
            Ok(Selector::Cgroup(glob))
        })
        .map_err(|error| {
            let message = format!("cgroup {text:?} is not a glob: {}", error.kind());
            Fault::new(message, "escape special characters with a backslash")
        })
}

fn unit(key: &str, text: &str) -> Result<String, Fault> {
    let message = format!("{key} {text:?} is not the name of a unit that has processes");
    if let Some(remedy) = wildcard(text, &['*', '?', '[']) {
        return Err(Fault::new(message, remedy));
    }
    let known = UNIT_TYPES
        .iter()
        .any(|suffix| text.len() > suffix.len() && text.ends_with(suffix));
    if known && !text.contains('/') {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        message,
        if has_suffix(text, ".slice") {
            format!("write `{} = {text:?}`", key.replace("unit", "slice"))
        } else {
            format!(
                "write the full name with its type ({})",
                UNIT_TYPES.join(", ")
            )
        },
    ))
}

fn slice(key: &str, text: &str) -> Result<String, Fault> {
    if let Some(remedy) = wildcard(text, &['*', '?', '[']) {
        let message = format!("{key} {text:?} is not the name of a slice");
        return Err(Fault::new(message, remedy));
    }
    if has_suffix(text, ".slice") && !text.contains('/') {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("{key} {text:?} is not the name of a slice"),
        "write the full name, such as \"system.slice\"",
    ))
}

/// What to do about a wildcard where there are none.
fn wildcard(text: &str, wildcards: &[char]) -> Option<&'static str> {
    text.contains(wildcards)
        .then_some("only `cgroup` takes wildcards: `cgroup = \"/system.slice/web-*.service\"`")
}

fn has_suffix(text: &str, suffix: &str) -> bool {
    text.len() > suffix.len() && text.ends_with(suffix)
}

fn exe(text: &str) -> Result<Selector, Fault> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(Fault::new(
            format!("exe {text:?} is not an absolute path"),
            "write the whole path, such as \"/usr/bin/curl\"",
        ));
    }
    // A file may be called `[`.
    if let Some(remedy) = wildcard(text, &['*', '?']) {
        let message = format!("exe {text:?} is not the path of one file");
        return Err(Fault::new(message, remedy));
    }
    let kept = path.components().filter(|part| *part != Component::CurDir);
    let normal: PathBuf = kept.collect();
    let climbs = path.components().any(|part| part == Component::ParentDir);
    if climbs || normal.as_os_str() != path.as_os_str() || text == "/" {
        return Err(Fault::new(
            format!("exe {text:?} is not a normalised path of a file"),
            if climbs || text == "/" {
                "write the path that `realpath` prints".to_owned()
            } else {
                format!("write {:?}", normal.display())
            },
        ));
    }
    Ok(Selector::Exe(normal))
}

fn sha256(text: &str) -> Result<Selector, Fault> {
    let digits = text.as_bytes();
    let mut hash = [0u8; 32];
    let mut valid = digits.len() == 64;
    for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
        let pair = std::str::from_utf8(pair).unwrap_or_default();
        // `from_str_radix` alone would take a sign.
        valid &= pair.bytes().all(|digit| digit.is_ascii_hexdigit());
        *byte = u8::from_str_radix(pair, 16).unwrap_or_default();
    }
    if valid {
        return Ok(Selector::Sha256(hash));
    }
    Err(Fault::new(
        format!("sha256 {text:?} is not 64 hexadecimal digits"),
        "write what `sha256sum` prints for the executable",
    ))
}

fn number(value: &Value<'_>, kind: Kind) -> Result<u32, Fault> {
    let Kind { number, name, .. } = kind;
    let digits = value.get_ref().as_integer();
    let id = digits.and_then(|digits| u32::from_str_radix(digits.as_str(), digits.radix()).ok());
    // The highest number means "none" (setresuid(2)).
    id.filter(|id| *id != u32::MAX).ok_or_else(|| {
        Fault::new(
            format!("{number} is not a {name} id"),
            format!("write a number from 0 to 4294967294, or `{name} = \"name\"`"),
        )
    })
}

fn name(text: &str, kind: Kind) -> Result<String, Fault> {
    if !text.is_empty()
        && !text
            .chars()
            .any(|c| c == ':' || c.is_whitespace() || c.is_control())
    {
        return Ok(text.to_owned());
    }
    let Kind { number, name, file } = kind;
    Err(Fault::new(
        format!("{name} {text:?} is not the name of a {name}"),
        format!("write the name as in {file}, or `{number} = 1000`"),
    ))
}
