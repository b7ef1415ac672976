//! Units and slices on a cgroup path, as `cg_path_get_unit` and `cg_path_get_user_unit` of systemd read it.
//!
//! systemd puts a unit into the cgroup of its slices: `/a.slice/a-b.slice/c.service`. So slices are the leading components
//! that end in `.slice`, and the unit is the first component after them. What lies below a unit is delegated: its names are
//! chosen by whoever runs there and are never taken for units or slices of the host. Below `user@UID.service` a user's own
//! service manager does the same once more; what it calls a unit is that user's word and nobody else's.

use std::{ffi::OsStr, path::Path};

use super::tree::directory::names;

/// The unit in which the service manager of a user runs.
const MANAGER: (&[u8], &[u8]) = (b"user@", b".service");

/// A component of a path: its level, from 1, and its name without systemd's escape.
pub(super) type Component<'p> = (u32, &'p [u8]);

/// What one service manager has put there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Managed<'p> {
    /// Slices, from the outermost.
    pub slices: Vec<Component<'p>>,
    /// The unit in them; none if the path ends before.
    pub unit: Option<Component<'p>>,
}

/// What a path says of units and slices.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Units<'p> {
    /// Those of the host.
    pub host: Managed<'p>,
    /// Those of the user with this number, below his service manager.
    pub user: Option<(u32, Managed<'p>)>,
}

/// Reads a path below the guarded root.
pub(super) fn units(path: &Path) -> Units<'_> {
    let mut parts = (1u32..).zip(names(path).map(OsStr::as_encoded_bytes));
    let host = managed(&mut parts);
    let user = host.unit.and_then(|(_, unit)| manager_of(unit));
    Units {
        host,
        user: user.map(|uid| (uid, managed(&mut parts))),
    }
}

/// The template of which a unit is an instance: `a@.service` of `a@b.service`.
pub(super) fn template_of(unit: &str) -> Option<String> {
    let (prefix, rest) = unit.split_once('@')?;
    let (instance, suffix) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| format!("{prefix}@.{suffix}"))
}

/// Whether a name is that of a template, which stands for its instances.
pub(super) fn is_template(unit: &str) -> bool {
    unit.split_once('@')
        .is_some_and(|(_, rest)| rest.starts_with('.'))
}

/// The name of the unit of a user's service manager.
pub(super) fn manager(uid: u32) -> String {
    format!("user@{uid}.service")
}

fn managed<'p>(parts: &mut impl Iterator<Item = (u32, &'p [u8])>) -> Managed<'p> {
    let mut managed = Managed::default();
    for (depth, part) in parts {
        // A name that could be taken for a file of the kernel is escaped with `_`.
        let name = part.strip_prefix(b"_").unwrap_or(part);
        if !part.ends_with(b".slice") {
            managed.unit = Some((depth, name));
            break;
        }
        managed.slices.push((depth, name));
    }
    managed
}

/// Only the number as systemd writes it.
fn manager_of(unit: &[u8]) -> Option<u32> {
    let (prefix, suffix) = MANAGER;
    let digits = unit.strip_prefix(prefix)?.strip_suffix(suffix)?;
    let uid = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (manager(uid).as_bytes() == unit).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = (Vec<(u32, String)>, Option<(u32, String)>);

    fn text(managed: &Managed<'_>) -> Read {
        let text =
            |(depth, name): &Component<'_>| (*depth, String::from_utf8_lossy(name).into_owned());
        (
            managed.slices.iter().map(text).collect(),
            managed.unit.as_ref().map(text),
        )
    }

    #[test]
    fn the_unit_comes_after_the_slices_and_what_is_below_is_not_the_hosts() {
        for (path, slices, unit) in [
            ("/", &[][..], None),
            ("/init.scope", &[], Some((1, "init.scope"))),
            (
                "/a.slice/a-b.slice/_c.service/d.slice/e.service",
                &[(1, "a.slice"), (2, "a-b.slice")],
                Some((3, "c.service")),
            ),
            ("/a.slice", &[(1, "a.slice")], None),
            ("/machine/a.slice", &[], Some((1, "machine"))),
        ] {
            let own = |(depth, name): &(u32, &str)| (*depth, (*name).to_owned());
            let expected = (slices.iter().map(own).collect(), unit.as_ref().map(own));
            let found = units(Path::new(path));
            assert_eq!(text(&found.host), expected, "{path}");
            assert_eq!(found.user, None, "{path}");
        }
    }

    #[test]
    fn the_manager_of_a_user_has_units_of_its_own() {
        let path = "/user.slice/user-1.slice/user@1.service/app.slice/x.service/y.service";
        let (uid, managed) = units(Path::new(path)).user.unwrap_or_default();
        assert_eq!(uid, 1);
        let expected = (
            vec![(4, "app.slice".to_owned())],
            Some((5, "x.service".to_owned())),
        );
        assert_eq!(text(&managed), expected);
    }

    #[test]
    fn instances_have_a_template() {
        for (unit, template) in [
            ("a@b.service", Some("a@.service")),
            ("a@b@c.d.service", Some("a@.service")),
            ("a@.service", None),
            ("a.service", None),
            ("a@b", None),
        ] {
            assert_eq!(template_of(unit).as_deref(), template, "{unit}");
            assert_eq!(is_template(unit), unit == "a@.service", "{unit}");
        }
    }

    #[test]
    fn only_the_number_of_a_user_makes_a_manager() {
        for unit in [
            "user@.service",
            "user@01.service",
            "user@+1.service",
            "user@-1.service",
            "user@root.service",
            "user@4294967296.service",
            "user@1.scope",
            "x-user@1.service",
            "user@1.service/x.service/user@2.service",
        ] {
            let path = format!("/user.slice/{unit}/a.service");
            let found = units(Path::new(&path)).user.map(|(uid, _)| uid);
            let expected = unit.starts_with("user@1.service").then_some(1);
            assert_eq!(found, expected, "{unit}");
        }
    }
}
