//! Where the running kernel keeps the fields that the programs read, from its BTF.
//!
//! Owns the walk over types; never guesses: a member that is not found, or that does not look as the
//! programs read it, is an error.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use btf_rs::{Backend, Btf, Struct, Type};
use nix::sys::memfd::{MFdFlags, memfd_create};
use ringfence_common::abi::Offsets;

/// Anonymous structures within each other, and typedefs of typedefs, at most.
const MAX_DEPTH: u32 = 16;

/// Why the kernel's structures can't be read.
#[derive(Debug, thiserror::Error)]
pub enum OffsetsError {
    /// The file is missing or is not BTF.
    #[error(
        "cannot read the kernel's type information {}: {source}; use a kernel built with \
         CONFIG_DEBUG_INFO_BTF=y",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: btf_rs::Error,
    },
    /// The kernel has no such member, or it is not a plain one.
    #[error(
        "this kernel's {structure} has no usable member {member}; Ringfence does not know this \
         kernel version: use a newer Ringfence or another kernel (5.15 and later)"
    )]
    Missing {
        /// Structure.
        structure: &'static str,
        /// Member; several names where kernel versions differ.
        member: &'static str,
    },
}

/// Reads the offsets from `/sys/kernel/btf/vmlinux` or another file of that format.
///
/// # Errors
/// If the file can't be read or lacks a member.
pub fn read(btf: &Path) -> Result<Offsets, OffsetsError> {
    let parsed = open(btf).map_err(|source| OffsetsError::Read {
        path: btf.into(),
        source,
    })?;
    find(&Kernel(&parsed))
}

/// A mapped file is looked up in place: parsing all of it would cost 40 MiB and a quarter of a second.
/// sysfs can't be mapped before 6.16, so this is a copy.
fn open(path: &Path) -> Result<Btf, btf_rs::Error> {
    let mut copy = File::from(memfd_create("btf", MFdFlags::MFD_CLOEXEC).map_err(io::Error::from)?);
    let _ = io::copy(&mut File::open(path)?, &mut copy)?;
    let name = format!("/proc/self/fd/{}", copy.as_raw_fd());
    Btf::from_file_with_backend(name, Backend::Mmap)
}

fn find(kernel: &Kernel<'_>) -> Result<Offsets, OffsetsError> {
    let (seconds, nanoseconds) = kernel.change_time()?;
    Ok(Offsets {
        task_mm: kernel.offset("task_struct", "mm")?,
        task_group_leader: kernel.offset("task_struct", "group_leader")?,
        task_start: kernel.offset("task_struct", "start_boottime")?,
        mm_exe_file: kernel.offset("mm_struct", "exe_file")?,
        file_inode: kernel.offset("file", "f_inode")?,
        inode_number: kernel.offset("inode", "i_ino")?,
        inode_super: kernel.offset("inode", "i_sb")?,
        super_device: kernel.offset("super_block", "s_dev")?,
        super_magic: kernel.offset("super_block", "s_magic")?,
        super_user_ns: kernel.offset("super_block", "s_user_ns")?,
        user_ns_level: kernel.offset("user_namespace", "level")?,
        inode_ctime_sec: seconds,
        inode_ctime_nsec: nanoseconds,
        task_cgroups: kernel.offset("task_struct", "cgroups")?,
        set_cgroup: kernel.offset("css_set", "dfl_cgrp")?,
        cgroup_node: kernel.offset("cgroup", "kn")?,
        node_id: kernel.offset("kernfs_node", "id")?,
        node_name: kernel.offset("kernfs_node", "name")?,
        task_cred: kernel.offset("task_struct", "cred")?,
        cred_groups: kernel.offset("cred", "group_info")?,
        groups_count: kernel.offset("group_info", "ngroups")?,
        groups_list: kernel.offset("group_info", "gid")?,
        task_tgid: kernel.offset("task_struct", "tgid")?,
        task_comm: kernel.offset("task_struct", "comm")?,
        cred_uid: kernel.offset("cred", "uid")?,
        cred_gid: kernel.offset("cred", "gid")?,
        // Since 6.15, and before.
        node_parent: kernel
            .offset("kernfs_node", "__parent")
            .or_else(|_| kernel.offset("kernfs_node", "parent"))?,
        sock_reuseport_bit: kernel.bit("sock_common", "skc_reuseport")?,
    })
}

/// Types of one kernel.
struct Kernel<'a>(&'a Btf);

/// A member's place within the outermost structure.
struct Place {
    /// Bytes.
    offset: u32,
    kind: Type,
}

impl Kernel<'_> {
    fn offset(&self, structure: &'static str, member: &'static str) -> Result<u32, OffsetsError> {
        self.place(structure, member)
            .map(|place| place.offset)
            .ok_or(OffsetsError::Missing { structure, member })
    }

    /// Where a member of one bit stands, in bits.
    fn bit(&self, structure: &'static str, member: &'static str) -> Result<u32, OffsetsError> {
        let types = self.0.resolve_types_by_name(structure).unwrap_or_default();
        let structures = types.iter().filter_map(|kind| {
            let Type::Struct(found) = kind else {
                return None;
            };
            Some(&found.members)
        });
        structures
            .flatten()
            .find(|it| {
                it.bitfield_size() == Some(1)
                    && self.0.resolve_name(*it).is_ok_and(|name| name == member)
            })
            .map(btf_rs::Member::bit_offset)
            .ok_or(OffsetsError::Missing { structure, member })
    }

    /// Seconds and nanoseconds of `inode`'s change time.
    fn change_time(&self) -> Result<(u32, u32), OffsetsError> {
        // Since 6.11.
        let split = (
            self.place("inode", "i_ctime_sec"),
            self.place("inode", "i_ctime_nsec"),
        );
        if let (Some(sec), Some(nsec)) = split {
            return Ok((sec.offset, nsec.offset));
        }
        // 6.6 to 6.10, and before.
        ["__i_ctime", "i_ctime"]
            .iter()
            .find_map(|member| self.timespec(&self.place("inode", member)?))
            .ok_or(OffsetsError::Missing {
                structure: "inode",
                member: "i_ctime_sec, __i_ctime or i_ctime",
            })
    }

    fn timespec(&self, at: &Place) -> Option<(u32, u32)> {
        let Type::Struct(timespec) = self.plain(at.kind.clone())? else {
            return None;
        };
        let sec = self.member(&timespec, "tv_sec", 0)?;
        let nsec = self.member(&timespec, "tv_nsec", 0)?;
        Some((
            at.offset.checked_add(sec.offset)?,
            at.offset.checked_add(nsec.offset)?,
        ))
    }

    fn place(&self, structure: &str, member: &str) -> Option<Place> {
        let types = self.0.resolve_types_by_name(structure).ok()?;
        types.into_iter().find_map(|kind| {
            let Type::Struct(found) = kind else {
                return None;
            };
            self.member(&found, member, 0)
        })
    }

    /// Looks into anonymous structures and unions too.
    fn member(&self, within: &Struct, name: &str, depth: u32) -> Option<Place> {
        if depth > MAX_DEPTH {
            return None;
        }
        within.members.iter().find_map(|member| {
            let offset = member.bit_offset() / 8;
            let own = self.0.resolve_name(member).unwrap_or_default();
            if own == name {
                let whole = member.bit_offset() % 8 == 0
                    && member.bitfield_size().is_none_or(|bits| bits == 0);
                let kind = self.0.resolve_chained_type(member).ok()?;
                return whole.then_some(Place { offset, kind });
            }
            if !own.is_empty() {
                return None;
            }
            let kind = self.plain(self.0.resolve_chained_type(member).ok()?)?;
            let (Type::Struct(inner) | Type::Union(inner)) = kind else {
                return None;
            };
            let found = self.member(&inner, name, depth + 1)?;
            Some(Place {
                offset: offset.checked_add(found.offset)?,
                kind: found.kind,
            })
        })
    }

    /// The type below typedefs and qualifiers.
    fn plain(&self, mut kind: Type) -> Option<Type> {
        for _ in 0..MAX_DEPTH {
            let outer = matches!(
                kind,
                Type::Typedef(_)
                    | Type::Const(_)
                    | Type::Volatile(_)
                    | Type::Restrict(_)
                    | Type::TypeTag(_)
            );
            if !outer {
                return Some(kind);
            }
            kind = self.0.resolve_chained_type(kind.as_btf_type()?).ok()?;
        }
        None
    }
}

#[cfg(test)]
mod tests;
