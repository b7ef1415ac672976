//! Groups: which ones the workloads of a process class ask for, and which of those a process is in.

use std::{collections::BTreeSet, fmt};

use ringfence_common::abi::{
    ClassGroups,
    executable::{GROUPED, MAX_GROUPS, MEMBER, NO_GID},
};

use super::spec::Spec;

/// What is known of the groups of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// All of them: the real one and the supplementary ones.
    All(BTreeSet<u32>),
    /// The class that the kernel noted of the process, with `MEMBER` bits.
    Noted(u32),
}

impl fmt::Display for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(all) => {
                let all: Vec<String> = all.iter().map(u32::to_string).collect();
                f.write_str(&all.join(", "))
            }
            Self::Noted(_) => f.write_str("not known"),
        }
    }
}

impl Groups {
    /// Whether the process is known to be in a group.
    pub(super) fn hold(&self, gid: u32) -> bool {
        matches!(self, Self::All(all) if all.contains(&gid))
    }

    /// Process class of the process where the cgroup has this one, which asks for these groups; `None`
    /// where it is not known in which of them it is.
    pub(super) fn class(&self, class: u32, asked: Option<&ClassGroups>) -> Option<u32> {
        if class & GROUPED == 0 {
            return Some(class);
        }
        match self {
            Self::Noted(noted) => (noted & !MEMBER == class).then_some(*noted),
            Self::All(all) => {
                let bits = (0u32..).zip(asked?.gids);
                let member = bits.filter(|(_, gid)| *gid != NO_GID && all.contains(gid));
                Some(member.fold(class, |class, (bit, _)| class | 1 << bit))
            }
        }
    }
}

/// Different groups that workloads ask for; an error where they are too many for one class.
pub(super) fn asked<'a>(
    workloads: impl Iterator<Item = &'a Spec>,
) -> Result<Vec<u32>, (BTreeSet<String>, usize)> {
    let mut gids = BTreeSet::new();
    let mut names = BTreeSet::new();
    for spec in workloads {
        if !spec.condition.groups.is_empty() {
            gids.extend(&spec.condition.groups);
            let _ = names.insert(spec.name.clone());
        }
    }
    if gids.len() > MAX_GROUPS {
        return Err((names, gids.len()));
    }
    Ok(gids.into_iter().collect())
}

/// A list of groups as the kernel's map holds it.
pub(super) fn of_class(asked: &[u32]) -> ClassGroups {
    let mut gids = [NO_GID; MAX_GROUPS];
    for (to, from) in gids.iter_mut().zip(asked) {
        *to = *from;
    }
    ClassGroups { gids }
}

/// Every set of some groups with the `MEMBER` bits that stand for it; first the empty one.
pub(super) fn memberships(asked: &[u32]) -> impl Iterator<Item = (u32, BTreeSet<u32>)> {
    (0..1u32 << asked.len()).map(move |member| {
        let bits = (0u32..).zip(asked);
        let held = bits.filter(|(bit, _)| member >> bit & 1 == 1);
        (member, held.map(|(_, gid)| *gid).collect())
    })
}

/// Workloads that ask for too many groups in one cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// The workloads.
    pub workloads: BTreeSet<String>,
    /// How many different groups they ask for.
    pub groups: usize,
    /// The cgroup.
    pub cgroup: String,
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.workloads.iter().map(|it| format!("{it:?}")).collect();
        write!(
            f,
            "workloads {} ask for {} different groups in cgroup {}, where at most {MAX_GROUPS} can be told apart",
            names.join(", "),
            self.groups,
            self.cgroup
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_of_a_process_has_a_bit_per_group_it_is_in() {
        let class = GROUPED | 0x100;
        let asked = of_class(&[0, 7, 900]);
        let all = |gids: &[u32]| Groups::All(gids.iter().copied().collect());
        for (groups, expected) in [
            (all(&[]), Some(class)),
            (all(&[1, 8, NO_GID]), Some(class)),
            (all(&[900, 7, 3]), Some(class | 0b110)),
            (all(&[0]), Some(class | 1)),
            (Groups::Noted(class | 0b10), Some(class | 0b10)),
            (Groups::Noted(class), Some(class)),
            (Groups::Noted(GROUPED | 0x200), None),
            (Groups::Noted(0), None),
        ] {
            assert_eq!(groups.class(class, Some(&asked)), expected, "{groups:?}");
        }
        assert_eq!(all(&[7]).class(class, None), None);
        assert_eq!(Groups::Noted(0).class(0x1ff, None), Some(0x1ff));
    }

    #[test]
    fn memberships_are_all_subsets() {
        let found: Vec<_> = memberships(&[5, 9]).collect();
        let expected: [(u32, BTreeSet<u32>); 4] = [
            (0, [].into()),
            (1, [5].into()),
            (2, [9].into()),
            (3, [5, 9].into()),
        ];
        assert_eq!(found, expected);
        assert_eq!(memberships(&[]).count(), 1);
    }
}
