//! `exe` selectors that name a script: the kernel runs its interpreter, so nobody ever matches them.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use ringfence_policy::{
    model::{PolicySet, Selector},
    parse::Diagnostic,
};

use super::{file::Executable, mounts::Mounts};

/// What the kernel reads of a first line (`BINPRM_BUF_SIZE`), bytes.
const FIRST_BYTES: u64 = 256;

/// A warning for each `exe` selector whose file begins with `#!`, as this host stands. A file that is not
/// there, can't be read or lies on FUSE is left out.
#[must_use]
pub fn scripts(set: &PolicySet) -> Vec<Diagnostic> {
    let named = |selector: &Selector| {
        let Selector::Exe(path) = selector else {
            return None;
        };
        Some(path.clone())
    };
    let mounts = Mounts::own().unwrap_or_default();
    let mut found = Vec::new();
    for workload in &set.workloads {
        for path in workload.selectors.iter().filter_map(named) {
            if let Ok(Some(interpreter)) = interpreter(&path, &mounts) {
                found.push(Diagnostic {
                    file: workload.file.clone(),
                    line: workload.line,
                    message: format!(
                        "workload {:?} matches nobody: its exe {} is a script, and the program that runs is its \
                         interpreter {}",
                        workload.name,
                        path.display(),
                        interpreter.display()
                    ),
                    remedy: "choose the workload by systemd-unit, cgroup or user; an exe that names the \
                             interpreter matches every script of it"
                        .to_owned(),
                });
            }
        }
    }
    found
}

/// Whom the first line of a script names; nothing where the file is no script.
fn interpreter(path: &Path, mounts: &Mounts) -> io::Result<Option<PathBuf>> {
    let file = Executable::open(path, mounts)?;
    let mount = mounts.by_device(file.key.device);
    if mount.is_none_or(super::mounts::Mount::is_fuse) {
        return Ok(None);
    }
    let mut start = Vec::new();
    let _bytes = file.reopen()?.take(FIRST_BYTES).read_to_end(&mut start)?;
    Ok(parse(&start))
}

/// An entrance for the fuzz target.
pub(crate) fn fuzz(bytes: &[u8]) {
    let _named = parse(bytes);
}

fn parse(start: &[u8]) -> Option<PathBuf> {
    let line = start
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let text = String::from_utf8_lossy(line);
    let name = text.split_ascii_whitespace().next().unwrap_or("?");
    // It goes to a terminal.
    Some(name.escape_debug().to_string().into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic fails the test")]

    use std::fs;

    use ringfence_policy::{model::Document, parse::parse as policy};

    use super::*;

    #[test]
    fn a_first_line_names_its_interpreter() {
        let long = [b"#!".as_slice(), &[b'x'; 300]].concat();
        for (start, expected) in [
            (b"#!/bin/sh\necho".as_slice(), Some("/bin/sh")),
            (b"#! /usr/bin/env python3 -u\r\n", Some("/usr/bin/env")),
            (b"#!", Some("?")),
            (b"#!\n", Some("?")),
            (b"#!/bin/\x1b[2J\xff", Some("/bin/\\u{1b}[2J\u{fffd}")),
            (b"\x7fELF", None),
            (b"", None),
            (b"#", None),
        ] {
            assert_eq!(parse(start), expected.map(PathBuf::from), "{start:?}");
        }
        assert_eq!(parse(&long).unwrap().as_os_str().len(), 300);
    }

    #[test]
    fn only_a_selector_of_a_script_is_warned_of() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("script", "#!/usr/bin/env python3\n");
        write("program", "\x7fELF");
        nix::unistd::mkfifo(
            &directory.path().join("pipe"),
            nix::sys::stat::Mode::S_IRWXU,
        )
        .unwrap();
        let workload = |name: &str| {
            let path = directory.path().join(name);
            format!(
                "[[workload]]\nname = \"{name}\"\nmatch = {{ exe = \"{}\" }}\n",
                path.display()
            )
        };
        let text = ["program", "script", "pipe", "absent"]
            .map(workload)
            .concat();
        let name = "p.toml".to_owned();
        let found = scripts(
            &policy(&[Document {
                name,
                text: text.into(),
            }])
            .unwrap(),
        );
        let [only] = found.as_slice() else {
            panic!("{found:?}");
        };
        let line = only.to_string();
        assert!(
            line.starts_with("p.toml:4: workload \"script\" matches nobody"),
            "{line}"
        );
        assert!(line.contains("interpreter /usr/bin/env"), "{line}");
    }
}
