//! What was guarded and is no longer, after the guarded root was changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::identity::root;

/// One warning for each cgroup of `before` that is not inside `root`.
pub(super) fn lost(root: &Path, before: &BTreeSet<u64>) -> Vec<String> {
    if before.is_empty() {
        return Vec::new();
    }
    let Ok(id) = root::cgroup_id(root) else {
        return Vec::new();
    };
    let paths = root::paths_of(before);
    warnings(root, before, &paths, |path| {
        path.ancestors()
            .any(|above| root::cgroup_id(above).is_ok_and(|above| above == id))
    })
}

fn warnings(
    root: &Path,
    before: &BTreeSet<u64>,
    paths: &BTreeMap<u64, PathBuf>,
    is_inside: impl Fn(&Path) -> bool,
) -> Vec<String> {
    let outside = before
        .iter()
        .filter(|id| !paths.get(id).is_some_and(|path| is_inside(path)));
    outside
        .map(|id| {
            let place = paths
                .get(id)
                .map_or_else(|| format!("cgroup {id}"), |path| path.display().to_string());
            format!(
                "{place} was guarded by the agent before and is not guarded any more: `agent.cgroup-root` \
                 is {} now; name a directory above both if it should be",
                root.display()
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_outside_the_root_is_lost() {
        let paths = BTreeMap::from([(1, "/cg/new/below".into()), (2, "/cg/old".into())]);
        let before = BTreeSet::from([1, 2, 3]);
        let found = warnings(Path::new("/cg/new"), &before, &paths, |path| {
            path.starts_with("/cg/new")
        });
        let starts = ["/cg/old was guarded", "cgroup 3 was guarded"];
        assert_eq!(found.len(), starts.len(), "{found:?}");
        for (warning, start) in found.iter().zip(starts) {
            assert!(warning.starts_with(start), "{warning}");
            assert!(warning.contains("/cg/new now"), "{warning}");
        }
    }
}
