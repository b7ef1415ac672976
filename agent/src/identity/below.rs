//! What cgroups that do not exist yet may stand for: names that selectors spell out, so that the kernel
//! can tell such a cgroup the moment it is there, and whether other names may matter as well.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use super::{spec::Spec, systemd, tree::directory::names};

/// What may lie right below a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Below {
    /// Names that some selector spells out.
    pub names: BTreeSet<Vec<u8>>,
    /// Some selector may match a name that it does not spell out.
    pub others: bool,
}

impl Below {
    fn add(&mut self, named: &Named) {
        self.names.extend(named.names.iter().cloned());
        self.others |= named.templates;
    }
}

/// The cgroup-like selectors of all workloads, by what they spell out.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    patterns: Node,
    host: Named,
    of_users: Named,
}

/// Units and slices, of the host or of users' service managers.
#[derive(Debug, Default)]
struct Named {
    names: BTreeSet<Vec<u8>>,
    /// Some selector stands for all instances of a template.
    templates: bool,
}

/// Patterns that are the same up to here.
#[derive(Debug, Default)]
struct Node {
    named: HashMap<Vec<u8>, Node>,
    /// A component with `*` or `?` comes next. That it matches is assumed.
    any: Option<Box<Node>>,
    /// Numbers of patterns that may match at any depth from here on.
    rest: Vec<usize>,
}

impl Ahead {
    /// Of these workloads; globs are numbered in the order of workloads and selectors.
    pub fn new(specs: &[Spec]) -> Self {
        let mut ahead = Self::default();
        let globs = specs.iter().flat_map(|spec| &spec.globs);
        for (number, glob) in globs.enumerate() {
            ahead.patterns.add(glob.glob(), number);
        }
        for spec in specs {
            let managers: Vec<_> = spec.managers().map(systemd::manager).collect();
            ahead.host.add([&spec.units, &spec.slices, &managers]);
            ahead.of_users.add([&spec.user_units, &spec.user_slices]);
        }
        ahead
    }

    /// What may lie below a path; `covered` says which globs match it or something above it already.
    pub fn below(&self, path: &Path, covered: &BTreeSet<usize>) -> Below {
        let mut below = Below::default();
        let mut reached = vec![&self.patterns];
        for name in names(path) {
            let name = name.as_encoded_bytes();
            let mut next = Vec::new();
            for node in reached {
                below.others |= node.goes_on(covered);
                next.extend(node.named.get(name));
                next.extend(node.any.as_deref());
            }
            reached = next;
        }
        for node in reached {
            below.others |= node.goes_on(covered) || node.any.is_some();
            below.names.extend(node.named.keys().cloned());
        }
        // A unit is the first component that is no slice.
        let units = systemd::units(path);
        if units.host.unit.is_none() {
            below.add(&self.host);
        }
        if units
            .user
            .is_some_and(|(_, managed)| managed.unit.is_none())
        {
            below.add(&self.of_users);
        }
        below
    }
}

impl Named {
    fn add<const N: usize>(&mut self, lists: [&Vec<String>; N]) {
        for name in lists.into_iter().flatten() {
            if systemd::is_template(name) {
                self.templates = true;
            } else {
                // systemd's escape (`cg_escape`): which names need it differs between versions, and whoever makes a
                // cgroup by hand may use it with any.
                let escaped = [b"_", name.as_bytes()].concat();
                self.names.extend([name.clone().into_bytes(), escaped]);
            }
        }
    }
}

impl Node {
    fn add(&mut self, pattern: &str, number: usize) {
        let mut node = self;
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            // Alternatives and classes may hold a slash: what follows is not told apart.
            if part.contains("**") || part.contains(['[', '{', '\\']) {
                node.rest.push(number);
                return;
            }
            node = if part.contains(['*', '?']) {
                node.any.get_or_insert_default()
            } else {
                node.named.entry(part.into()).or_default()
            };
        }
    }

    fn goes_on(&self, covered: &BTreeSet<usize>) -> bool {
        self.rest.iter().any(|number| !covered.contains(number))
    }
}

#[cfg(test)]
mod agreement;

#[cfg(test)]
mod tests {
    use ringfence_policy::model::Selector;

    use super::*;
    use crate::identity::{
        fixture::{cgroup, slice, unit, user_slice, user_unit, workloads},
        placement::specs,
    };

    fn below(selectors: &[Selector], path: &str, covered: &[usize]) -> (Vec<String>, bool) {
        let (workloads, identities) = workloads(&[("w", selectors)]);
        let Ok(specs) = specs(&workloads, &identities, |_| None, |_| None) else {
            panic!("{selectors:?}");
        };
        let covered = covered.iter().copied().collect();
        let found = Ahead::new(&specs).below(Path::new(path), &covered);
        let text = |name: &Vec<u8>| String::from_utf8_lossy(name).into_owned();
        (found.names.iter().map(text).collect(), found.others)
    }

    #[test]
    fn names_are_what_globs_spell_out_next() {
        let globs = [cgroup("/a/b"), cgroup("/a/*/c"), cgroup("/d-?/e")];
        for (path, names, others) in [
            ("/", &["a"][..], true),
            ("/a", &["b", "e"], true),
            ("/a/b", &["c"], false),
            ("/a/x", &["c"], false),
            ("/a/b/c", &[], false),
            ("/x", &["e"], false),
            ("/x/y", &[], false),
        ] {
            let found = below(&globs, path, &[]);
            assert_eq!(
                found,
                (names.iter().map(ToString::to_string).collect(), others),
                "{path}"
            );
        }
    }

    #[test]
    fn a_pattern_of_any_depth_matters_until_it_has_matched() {
        for glob in ["/a/**", "/a/{b,c/d}/e", "/a/[bc]"] {
            for (path, others) in [("/", false), ("/a", true), ("/a/x/y", true), ("/b", false)] {
                assert_eq!(below(&[cgroup(glob)], path, &[]).1, others, "{glob} {path}");
                assert!(!below(&[cgroup(glob)], path, &[0]).1, "{glob} {path}");
            }
        }
    }

    #[test]
    fn units_and_slices_lie_below_slices_only() {
        let both = [
            unit("web.service"),
            slice("app.slice"),
            unit("memory.service"),
        ];
        let all = [
            "_app.slice",
            "_memory.service",
            "_web.service",
            "app.slice",
            "memory.service",
            "web.service",
        ];
        for path in ["/", "/system.slice", "/a.slice/a-b.slice"] {
            assert_eq!(below(&both, path, &[]).0, all, "{path}");
        }
        for path in ["/init.scope", "/system.slice/web.service", "/a/b.slice"] {
            assert!(below(&both, path, &[]).0.is_empty(), "{path}");
        }
    }

    #[test]
    fn a_template_stands_for_names_that_nobody_knows_yet() {
        for (selectors, others) in [
            (&[unit("web@.service")][..], ["/", "/system.slice"]),
            (
                &[user_unit("web@.service"), Selector::Uid(7)],
                ["/user.slice/user@7.service", "/user@7.service/app.slice"],
            ),
        ] {
            for path in others {
                assert!(below(selectors, path, &[]).1, "{path}");
            }
            for path in [
                "/web.service",
                "/user@7.service/web.service",
                "/system.slice/web@1.service",
            ] {
                assert!(!below(selectors, path, &[]).1, "{path}");
            }
        }
    }

    #[test]
    fn a_users_units_lie_below_his_manager() {
        let selectors = [
            user_unit("web.service"),
            user_slice("app.slice"),
            Selector::Uid(7),
        ];
        let units = ["_app.slice", "_web.service", "app.slice", "web.service"];
        for (path, names) in [
            (
                "/user.slice/user-7.slice",
                &["_user@7.service", "user@7.service"][..],
            ),
            ("/user.slice/user-7.slice/user@7.service", &units),
            ("/user.slice/user-7.slice/user@7.service/app.slice", &units),
            ("/user.slice/user-7.slice/user@7.service/x.service", &[]),
            ("/user.slice/user-7.slice/session-1.scope", &[]),
        ] {
            assert_eq!(below(&selectors, path, &[]).0, names, "{path}");
        }
    }
}
