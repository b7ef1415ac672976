//! What selectors name and this host does not have: the file of an `exe`, a user, a group.
//!
//! Not an error: packages are installed later, and a controller's policy is written for many hosts. But nobody
//! matches such a workload, so a word is due.

use std::{collections::HashSet, io::ErrorKind, path::Path};

use ringfence_policy::{
    model::{Document, PolicySet, Selector, Workload},
    parse::Diagnostic,
};

use super::{Resolver, file::Executable, mounts::Mounts, names};

/// Warnings that get a line of their own at most.
const LINES: usize = 20;

/// A line for each selector that names what this host does not have, as it stands now; those beyond the first 20
/// are counted. `local` are the documents written for this host, `None` = all: of others an absent `exe` is no
/// news.
#[must_use]
pub fn absent(set: &PolicySet, local: Option<&[Document]>) -> Vec<String> {
    let mounts = Mounts::own().unwrap_or_default();
    lines(set, local, |_, asked| match asked {
        Asked::File(path) => match Executable::open(path, &mounts) {
            Ok(_) => true,
            // Who asks may not look there.
            Err(error) => error.kind() == ErrorKind::PermissionDenied,
        },
        Asked::User(name) => names::user(name).is_some(),
        Asked::Group(name) => names::group(name).is_some(),
    })
}

impl Resolver {
    /// As [`absent`], of the workloads in force and by what is known without asking the host again: names as they were
    /// resolved, files as they are watched.
    #[must_use]
    pub fn absent(&self, set: &PolicySet, local: &[Document]) -> Vec<String> {
        let unknown: HashSet<&str> = self.unknown_names().collect();
        lines(set, Some(local), |selector, asked| match asked {
            Asked::File(path) => self.is_file(path),
            Asked::User(_) | Asked::Group(_) => {
                unknown.is_empty() || !unknown.contains(&*selector.to_string())
            }
        })
    }
}

/// What of this host a selector names.
enum Asked<'a> {
    File(&'a Path),
    User(&'a str),
    Group(&'a str),
}

impl<'a> Asked<'a> {
    fn by(selector: &'a Selector) -> Option<Self> {
        match selector {
            Selector::Exe(path) => Some(Self::File(path)),
            Selector::User(name) => Some(Self::User(name)),
            Selector::Group(name) => Some(Self::Group(name)),
            Selector::Cgroup(_)
            | Selector::SystemdUnit(_)
            | Selector::SystemdSlice(_)
            | Selector::SystemdUserUnit(_)
            | Selector::SystemdUserSlice(_)
            | Selector::Sha256(_)
            | Selector::Uid(_)
            | Selector::Gid(_)
            | Selector::Container { .. } => None,
        }
    }
}

fn lines(
    set: &PolicySet,
    local: Option<&[Document]>,
    is_there: impl Fn(&Selector, &Asked<'_>) -> bool,
) -> Vec<String> {
    let local: Option<HashSet<&str>> =
        local.map(|documents| documents.iter().map(|it| it.name.as_str()).collect());
    let counts = |workload: &Workload, asked: &Asked<'_>| {
        let written_here = || {
            let file = workload.file.as_str();
            local.as_ref().is_none_or(|local| local.contains(file))
        };
        !matches!(asked, Asked::File(_)) || written_here()
    };
    let named = set.workloads.iter().flat_map(|workload| {
        let selectors = workload.selectors.iter();
        selectors.map(move |selector| (&**workload, selector))
    });
    let mut absent = named.filter(|(workload, selector)| {
        Asked::by(selector)
            .is_some_and(|asked| counts(workload, &asked) && !is_there(selector, &asked))
    });
    let first = absent.by_ref().take(LINES);
    let mut lines: Vec<String> = first
        .map(|(workload, selector)| diagnostic(workload, selector).to_string())
        .collect();
    let more = absent.count();
    if more > 0 {
        lines.push(format!(
            "and {more} more selectors name files, users or groups that this host does not have"
        ));
    }
    lines
}

fn diagnostic(workload: &Workload, selector: &Selector) -> Diagnostic {
    let remedy = if matches!(selector, Selector::Exe(_)) {
        "install it or correct the path: the workload matches as soon as the file is there"
    } else {
        "add it and apply the policy again, or correct the name"
    };
    Diagnostic {
        file: workload.file.clone(),
        line: workload.line,
        message: format!(
            "workload {:?} asks for {selector}, which this host does not have, so it matches nobody",
            workload.name
        ),
        remedy: remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic fails the test")]

    use std::fs;

    use ringfence_policy::parse::parse;

    use super::*;

    fn documents(workloads: impl Iterator<Item = String>) -> Vec<Document> {
        let workload = |(n, selectors): (usize, String)| {
            format!("[[workload]]\nname = \"w{n}\"\nmatch = {{ {selectors} }}\n")
        };
        vec![Document {
            name: "p.toml".to_owned(),
            text: workloads
                .enumerate()
                .map(workload)
                .collect::<String>()
                .into(),
        }]
    }

    #[test]
    fn what_a_host_lacks_is_named_until_it_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app");
        let exe = format!("exe = \"{}\"", path.display());
        let selectors = [
            &*exe,
            "user = \"nobdy\"",
            "group = \"nobdy\"",
            "user = \"root\", group = \"root\", exe = \"/proc/self/exe\"",
            "cgroup = \"/absent\"",
        ];
        let documents = documents(selectors.map(str::to_owned).into_iter());
        let set = parse(&documents).unwrap();
        let found = absent(&set, None);
        let [file, user, group] = found.as_slice() else {
            panic!("{found:#?}");
        };
        let expected = format!(
            "p.toml:1: workload \"w0\" asks for exe = {}, which this host does not have, so it matches nobody; install it",
            path.display()
        );
        assert!(file.starts_with(&expected), "{file}");
        assert!(user.contains("\"w1\" asks for user = nobdy, "), "{user}");
        assert!(group.contains("\"w2\" asks for group = nobdy, "), "{group}");
        assert_eq!(absent(&set, Some(&documents)), found);
        // In a controller's document: one that has never heard of this host.
        assert_eq!(absent(&set, Some(&[])).len(), 2);
        fs::create_dir(&path).unwrap();
        assert_eq!(absent(&set, None).len(), 3, "a directory is no program");
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "\x7fELF").unwrap();
        assert_eq!(absent(&set, None), [user.clone(), group.clone()]);
    }

    #[test]
    fn many_are_counted() {
        let many = documents((0..LINES + 7).map(|n| format!("exe = \"/absent/{n}\"")));
        let found = absent(&parse(&many).unwrap(), None);
        assert_eq!(found.len(), LINES + 1);
        assert!(found.last().unwrap().starts_with("and 7 more selectors"));
    }
}
