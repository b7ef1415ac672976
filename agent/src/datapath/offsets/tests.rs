//! The running kernel's BTF, and made-up ones of older kernels.

use std::{collections::HashSet, error::Error, path::Path};

use super::*;

type Outcome = Result<(), Box<dyn Error>>;

const INT: u32 = 1;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const TYPEDEF: u32 = 8;
const CONST: u32 = 10;

/// Writes BTF (Documentation/bpf/btf.rst): numbers and order of types as they are added.
struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
    next: u32,
}

impl Writer {
    /// Type 1 is an 8-byte integer.
    fn new() -> Self {
        let mut writer = Self {
            types: Vec::new(),
            strings: vec![0],
            next: 1,
        };
        let _long = writer.add("long", INT, 0, 8, &[64]);
        writer
    }

    fn text(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).unwrap_or(u32::MAX);
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        at
    }

    fn add(&mut self, name: &str, kind: u32, length: u32, size: u32, words: &[u32]) -> u32 {
        let name = self.text(name);
        for word in [name, kind << 24 | length, size].iter().chain(words) {
            self.types.extend(word.to_ne_bytes());
        }
        self.next += 1;
        self.next - 1
    }

    /// Members: name, type, offset in bytes.
    fn members(&mut self, name: &str, kind: u32, members: &[(&str, u32, u32)]) -> u32 {
        let mut words = Vec::new();
        for (name, kind, offset) in members {
            words.extend([self.text(name), *kind, offset * 8]);
        }
        let length = u32::try_from(members.len()).unwrap_or(u32::MAX);
        self.add(name, kind, length, 4096, &words)
    }

    fn finish(&self) -> Vec<u8> {
        let types = u32::try_from(self.types.len()).unwrap_or(u32::MAX);
        let strings = u32::try_from(self.strings.len()).unwrap_or(u32::MAX);
        let mut out = Vec::new();
        out.extend(0xeb9f_u16.to_ne_bytes());
        out.extend([1, 0]);
        for word in [24, 0, types, types, strings] {
            out.extend(word.to_ne_bytes());
        }
        out.extend(&self.types);
        out.extend(&self.strings);
        out
    }
}

/// A kernel with everything but the change time; `inode` members are added to those every kernel has.
fn kernel(writer: &mut Writer, inode: &[(&str, u32, u32)]) -> Vec<u8> {
    let inner = writer.members("", STRUCT, &[("mm", INT, 8)]);
    let group = writer.members("", UNION, &[("group_leader", INT, 0)]);
    let group = writer.add("", CONST, 0, group, &[]);
    let task = [
        ("", inner, 16),
        ("", group, 32),
        ("start_boottime", INT, 40),
        ("cgroups", INT, 44),
        ("cred", INT, 116),
        ("tgid", INT, 136),
        ("comm", INT, 140),
    ];
    let _cred = writer.members(
        "cred",
        STRUCT,
        &[
            ("group_info", INT, 120),
            ("uid", INT, 144),
            ("gid", INT, 148),
        ],
    );
    let list = [("ngroups", INT, 124), ("gid", INT, 128)];
    let _groups = writer.members("group_info", STRUCT, &list);
    let _task = writer.members("task_struct", STRUCT, &task);
    let _mm = writer.members("mm_struct", STRUCT, &[("exe_file", INT, 48)]);
    let _file = writer.members("file", STRUCT, &[("f_inode", INT, 56)]);
    let superblock = [
        ("s_dev", INT, 64),
        ("s_magic", INT, 104),
        ("s_user_ns", INT, 108),
    ];
    let _super = writer.members("super_block", STRUCT, &superblock);
    let _user_ns = writer.members("user_namespace", STRUCT, &[("level", INT, 112)]);
    let _set = writer.members("css_set", STRUCT, &[("dfl_cgrp", INT, 88)]);
    let _cgroup = writer.members("cgroup", STRUCT, &[("kn", INT, 92)]);
    // As before 6.15.
    let node = [("id", INT, 96), ("name", INT, 100), ("parent", INT, 152)];
    let _node = writer.members("kernfs_node", STRUCT, &node);
    // Its members have sizes in bits.
    let reuse = [writer.text("skc_reuse"), INT, (4 << 24) + 152];
    let shared = [writer.text("skc_reuseport"), INT, (1 << 24) + 156];
    let words = [reuse, shared].concat();
    let _sock = writer.add("sock_common", 0x80 | STRUCT, 2, 4096, &words);
    let inode: Vec<_> = [("i_ino", INT, 72), ("i_sb", INT, 80)]
        .iter()
        .chain(inode)
        .copied()
        .collect();
    let _inode = writer.members("inode", STRUCT, &inode);
    writer.finish()
}

fn timespec(writer: &mut Writer) -> u32 {
    let plain = writer.members(
        "timespec64",
        STRUCT,
        &[("tv_sec", INT, 0), ("tv_nsec", INT, 8)],
    );
    let named = writer.add("time_t", TYPEDEF, 0, plain, &[]);
    writer.add("", CONST, 0, named, &[])
}

fn offsets(bytes: &[u8]) -> Result<Offsets, Box<dyn Error>> {
    Ok(find(&Kernel(&Btf::from_bytes(bytes)?))?)
}

#[test]
fn running_kernel_has_every_member_at_a_sane_place() -> Outcome {
    let found = read(Path::new("/sys/kernel/btf/vmlinux"))?;
    let task = [found.task_mm, found.task_group_leader, found.task_start];
    let inode = [
        found.inode_number,
        found.inode_super,
        found.inode_ctime_sec,
        found.inode_ctime_nsec,
    ];
    let others = [
        found.mm_exe_file,
        found.file_inode,
        found.super_device,
        found.task_cgroups,
        found.set_cgroup,
        found.cgroup_node,
    ];
    assert_ne!(found.node_id, found.node_name, "{found:?}");
    assert_ne!(found.task_cred, found.cred_groups, "{found:?}");
    assert!(found.groups_list > found.groups_count, "{found:?}");
    assert_ne!(found.task_tgid, found.task_comm, "{found:?}");
    assert!(found.cred_gid > found.cred_uid, "{found:?}");
    assert_ne!(found.node_parent, found.node_name, "{found:?}");
    assert!(found.sock_reuseport_bit < 256, "{found:?}");
    for offset in task.iter().chain(&inode).chain(&others) {
        assert!(*offset < 65536, "{found:?}");
    }
    assert_eq!(HashSet::from(task).len(), task.len(), "{found:?}");
    assert_eq!(HashSet::from(inode).len(), inode.len(), "{found:?}");
    assert!(found.inode_ctime_nsec > found.inode_ctime_sec, "{found:?}");
    Ok(())
}

#[test]
fn change_time_is_found_in_every_generation_of_kernels() -> Outcome {
    for name in ["__i_ctime", "i_ctime"] {
        let mut writer = Writer::new();
        let time = timespec(&mut writer);
        let found = offsets(&kernel(&mut writer, &[(name, time, 104)]))?;
        assert_eq!((found.inode_ctime_sec, found.inode_ctime_nsec), (104, 112));
    }
    let mut writer = Writer::new();
    let split = [("i_ctime_sec", INT, 104), ("i_ctime_nsec", INT, 132)];
    let found = offsets(&kernel(&mut writer, &split))?;
    let expected = Offsets {
        task_mm: 24,
        task_group_leader: 32,
        task_start: 40,
        mm_exe_file: 48,
        file_inode: 56,
        inode_number: 72,
        inode_super: 80,
        super_device: 64,
        super_magic: 104,
        super_user_ns: 108,
        user_ns_level: 112,
        inode_ctime_sec: 104,
        inode_ctime_nsec: 132,
        task_cgroups: 44,
        set_cgroup: 88,
        cgroup_node: 92,
        node_id: 96,
        node_name: 100,
        task_cred: 116,
        cred_groups: 120,
        groups_count: 124,
        groups_list: 128,
        task_tgid: 136,
        task_comm: 140,
        cred_uid: 144,
        cred_gid: 148,
        node_parent: 152,
        sock_reuseport_bit: 156,
    };
    assert_eq!(found, expected);
    Ok(())
}

#[test]
fn missing_member_is_an_error_that_names_it() -> Outcome {
    let btf = open(Path::new("/sys/kernel/btf/vmlinux"))?;
    let Err(error) = Kernel(&btf).offset("task_struct", "no_such_member") else {
        return Err("found".into());
    };
    let text = error.to_string();
    assert!(
        text.contains("task_struct") && text.contains("no_such_member"),
        "{text}"
    );

    let mut writer = Writer::new();
    let without = kernel(&mut writer, &[("i_ctime", INT, 104)]);
    let Err(error) = offsets(&without) else {
        return Err("found".into());
    };
    assert!(error.to_string().contains("__i_ctime"), "{error}");
    Ok(())
}

#[test]
fn file_that_is_not_btf_is_an_error() {
    for path in ["/proc/self/status", "/no/such/file"] {
        let found = read(Path::new(path));
        assert!(matches!(found, Err(OffsetsError::Read { .. })), "{found:?}");
    }
}
