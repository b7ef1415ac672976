//! Which of the groups that workloads ask for the current process is in: its real group and its
//! supplementary ones. Looked at only where the cgroup's process class asks for groups.

use ringfence_common::abi::executable::{GROUPED, NO_GID};

use crate::{maps::GROUPS, task};

/// Supplementary groups at most (`NGROUPS_MAX`).
const MOST: u32 = 65_536;
/// Steps after which a search among so many has ended.
const STEPS: u32 = 17;
/// Answer of the functions below where the kernel's memory can't be read.
const UNREADABLE: i32 = -1;

/// Process class of the current process, whose real group is `gid`, in a cgroup of this class.
#[inline(always)]
pub fn class_of_current(class: u32, gid: u32) -> Option<u32> {
    if class & GROUPED == 0 {
        return Some(class);
    }
    match ringfence_groups(class, gid) {
        UNREADABLE => None,
        member => Some(class | member.cast_unsigned()),
    }
}

/// `MEMBER` bits of the current process. A global function, which the verifier checks once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ringfence_groups(class: u32, real: u32) -> i32 {
    // SAFETY: an entry is never written in place: what a class means stays the same.
    let (Some(asked), Some((count, list))) = (unsafe { GROUPS.get(class) }, task::groups()) else {
        return UNREADABLE;
    };
    let mut member = 0;
    let mut bit = 1;
    for gid in &asked.gids {
        let gid = *gid;
        if gid == NO_GID {
            break;
        }
        let found = if gid == real {
            1
        } else {
            ringfence_in_group(list, count, gid)
        };
        if found == UNREADABLE {
            return UNREADABLE;
        }
        if found != 0 {
            member |= bit;
        }
        bit <<= 1;
    }
    member
}

/// Whether a gid is in a list of the kernel's, 1 or 0. The list is sorted (`groups_sort`), whoever sets it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ringfence_in_group(list: u64, count: u32, gid: u32) -> i32 {
    if count > MOST {
        return UNREADABLE;
    }
    let (mut first, mut length) = (0, count);
    for _ in 0..STEPS {
        if length == 0 {
            return 0;
        }
        let half = length / 2;
        let Some(found) = task::group(list, first + half) else {
            return UNREADABLE;
        };
        if found == gid {
            return 1;
        }
        if found < gid {
            first += half + 1;
            length -= half + 1;
        } else {
            length = half;
        }
    }
    0
}
