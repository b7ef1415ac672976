//! The comparison in words: by which criterion one match is less specific than another.

use super::Specificity;

impl Specificity {
    /// Why this one is not more specific than `better`, which is at least as specific; in the order of
    /// docs/identity.md.
    pub fn less_because(&self, better: &Self) -> String {
        let (ours, theirs) = (self.place, better.place);
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
            None if self == better => "tied: equally specific in everything".to_owned(),
            None => "its other conditions are less specific".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Condition, Place, Specificity};

    #[test]
    fn the_first_difference_is_named() {
        let condition = |path: bool, uid: bool| Condition {
            paths: path.then(|| "/bin/x".into()).into_iter().collect(),
            users: uid.then(|| [1].into()),
            ..Condition::default()
        };
        let place = |depth, literal| Place {
            depth,
            literal,
            ..Place::default()
        };
        let new = |path, uid, depth, literal| {
            Specificity::new(&condition(path, uid), place(depth, literal))
        };
        let cases = [
            (
                new(true, false, 9, 9),
                new(true, true, 0, 0),
                "kinds of conditions on the process: 1 against 2",
            ),
            (
                new(false, true, 0, 0),
                new(true, false, 0, 0),
                "path of the executable: 0 against 1",
            ),
            (
                new(true, true, 1, 5),
                new(true, true, 2, 0),
                "level of the cgroup where it takes hold: 1 against 2",
            ),
            (
                new(true, true, 2, 1),
                new(true, true, 2, 2),
                "components of the path spelled out: 1 against 2",
            ),
            (
                new(true, true, 2, 2),
                new(true, true, 2, 2),
                "tied: equally specific in everything",
            ),
        ];
        for (less, more, expected) in cases {
            assert!(less <= more);
            assert_eq!(less.less_because(&more), expected);
        }
    }
}
