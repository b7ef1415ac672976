//! The comparison in words: by which criterion one match is less specific than another.

use super::Specificity;

impl Specificity {
    /// Why this one is not more specific than `better`, which is at least as specific; in the order of
    /// docs/identity.md.
    pub fn less_because(&self, better: &Self) -> String {
        let (ours, theirs) = (self.place, better.place);
        let groups = |it: &Self| u32::try_from(it.groups).unwrap_or(u32::MAX);
        let fewer = [
            (
                u32::from(self.conditions),
                u32::from(better.conditions),
                "kinds of conditions on the process",
            ),
            (u32::from(self.digest), u32::from(better.digest), "digest"),
            (
                u32::from(self.path),
                u32::from(better.path),
                "path of the executable",
            ),
            (
                u32::from(self.user),
                u32::from(better.user),
                "user of the process",
            ),
            (groups(self), groups(better), "groups of the process"),
            (
                ours.container,
                theirs.container,
                "selectors that look at the container",
            ),
            (
                ours.depth,
                theirs.depth,
                "level of the cgroup where it takes hold",
            ),
            (
                ours.literal,
                theirs.literal,
                "components of the path spelled out",
            ),
            (
                ours.partial,
                theirs.partial,
                "components of the path spelled out in part",
            ),
            (ours.units, theirs.units, "systemd unit"),
            (ours.slices, theirs.slices, "systemd slice"),
        ];
        let differs = fewer.iter().find(|(ours, theirs, _)| ours != theirs);
        match differs {
            Some((ours, theirs, what)) => format!("{what}: {ours} against {theirs}"),
            None => "tied: equally specific in everything".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Place, Specificity};

    type Lessen = fn(&mut Specificity);

    #[test]
    fn the_first_difference_is_named() {
        let base = Specificity {
            conditions: 2,
            digest: true,
            path: true,
            user: true,
            groups: 2,
            place: Place {
                container: 2,
                depth: 2,
                literal: 2,
                partial: 2,
                units: 2,
                slices: 2,
            },
        };
        // In the order of docs/identity.md: each is less in one thing, and says so whatever comes after it.
        let cases: [(Lessen, &str); 11] = [
            (
                |it| it.conditions = 1,
                "kinds of conditions on the process: 1 against 2",
            ),
            (|it| it.digest = false, "digest: 0 against 1"),
            (|it| it.path = false, "path of the executable: 0 against 1"),
            (|it| it.user = false, "user of the process: 0 against 1"),
            (|it| it.groups = 1, "groups of the process: 1 against 2"),
            (
                |it| it.place.container = 1,
                "selectors that look at the container: 1 against 2",
            ),
            (
                |it| it.place.depth = 1,
                "level of the cgroup where it takes hold: 1 against 2",
            ),
            (
                |it| it.place.literal = 1,
                "components of the path spelled out: 1 against 2",
            ),
            (
                |it| it.place.partial = 1,
                "components of the path spelled out in part: 1 against 2",
            ),
            (|it| it.place.units = 1, "systemd unit: 1 against 2"),
            (|it| it.place.slices = 1, "systemd slice: 1 against 2"),
        ];
        for (number, (lessen, expected)) in cases.iter().enumerate() {
            let (mut less, mut more) = (base, base);
            lessen(&mut less);
            for (lessen, _) in cases.iter().skip(number + 1) {
                lessen(&mut more);
            }
            assert!(less < more, "{expected}");
            assert_eq!(less.less_because(&more), *expected);
        }
        assert_eq!(
            base.less_because(&base),
            "tied: equally specific in everything"
        );
    }
}
