//! What this kernel and this host offer, and what is lost where they do not.
//!
//! Only looks; changes nothing. What the loader finds out anyway (map and program types) is left to it.

use std::{fs, os::unix::fs::MetadataExt};

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};

use super::destroy;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
/// The oldest kernel that is supported.
const FLOOR: (u32, u32) = (5, 15);
/// `PROC_PID_INIT_INO` (`include/linux/proc_ns.h`).
const INITIAL_PID_NAMESPACE: u64 = 0xefff_fffc;

/// Name of the feature by which `connect` can end with another error number than `EPERM`.
pub const CONNECT_ERRNO: &str = "connect-errno";

/// Bits of `CapEff` (capabilities(7)).
const NET_ADMIN: u32 = 12;
const SYS_PTRACE: u32 = 19;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// One thing that the agent needs or can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Short name, stable.
    pub name: &'static str,
    /// Whether it is there.
    pub present: bool,
    /// Whether nothing works without it.
    pub required: bool,
    /// What is lost without it, or how to get it.
    pub note: &'static str,
}

/// Looks at everything.
#[must_use]
pub fn probe() -> Vec<Feature> {
    let mut out = capabilities(&read("/proc/self/status"));
    out.extend(kernel());
    out.extend(optional());
    out
}

/// Everything that is required and missing, each on a line with its remedy.
#[must_use]
pub fn missing(features: &[Feature]) -> Option<String> {
    let lines: Vec<_> = features
        .iter()
        .filter(|feature| feature.required && !feature.present)
        .map(|feature| format!("  {}: {}", feature.name, feature.note))
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn capabilities(status: &str) -> Vec<Feature> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .unwrap_or(0);
    let has = |bit: u32| effective >> bit & 1 == 1;
    vec![
        required(
            "cap-bpf",
            has(BPF) || has(SYS_ADMIN),
            "programs can't be loaded; run the agent as root or with CAP_BPF",
        ),
        required(
            "cap-net-admin",
            has(NET_ADMIN),
            "network programs can't be loaded and connections can't be reset; run the agent as root or with CAP_NET_ADMIN",
        ),
        required(
            "cap-perfmon",
            has(PERFMON) || has(SYS_ADMIN),
            "programs can't read the kernel's memory; run the agent as root or with CAP_PERFMON",
        ),
        required(
            "cap-sys-ptrace",
            has(SYS_PTRACE),
            "executables and sockets of other processes can't be read; run the agent as root or \
             with CAP_SYS_PTRACE",
        ),
        Feature {
            name: "cap-sys-admin",
            present: has(SYS_ADMIN),
            required: false,
            note: "bpffs can't be mounted and other network namespaces can't be entered: their local \
                   addresses are unknown and their revoked connections are cut but not reset; run \
                   the agent as root or with CAP_SYS_ADMIN",
        },
    ]
}

fn kernel() -> [Feature; 5] {
    [
        required(
            "kernel",
            version(&read("/proc/sys/kernel/osrelease")) >= Some(FLOOR),
            "the kernel is too old; use 5.15 or later",
        ),
        required(
            "little-endian",
            cfg!(target_endian = "little"),
            "the kernel programs are built for little-endian machines; use x86_64 or aarch64",
        ),
        required(
            "btf",
            fs::metadata(VMLINUX).is_ok(),
            "the kernel does not describe its types; use one with CONFIG_DEBUG_INFO_BTF=y and mount \
             sysfs on /sys",
        ),
        required(
            "bpffs",
            lists_filesystem(&read("/proc/filesystems"), "bpf"),
            "programs can't be pinned; use a kernel with CONFIG_BPF_SYSCALL=y",
        ),
        required(
            "cgroup2",
            mounts_filesystem(&read("/proc/self/mountinfo"), "cgroup2"),
            "no cgroup v2 hierarchy is mounted; mount one (mount -t cgroup2 none /sys/fs/cgroup)",
        ),
    ]
}

/// Whether the programs can choose the error number that `connect` ends with (`bpf_set_retval`).
fn can_set_errno() -> bool {
    is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval)
        .unwrap_or(false)
}

/// Whether programs can refuse sockets that no other hook sees: BPF LSM is among the security modules, and can be
/// attached to a cgroup (Linux 6.0).
#[must_use]
pub fn has_socket_lsm() -> bool {
    version(&read("/proc/sys/kernel/osrelease")) >= Some((6, 0))
        && lists_module(&read("/sys/kernel/security/lsm"), "bpf")
}

fn optional() -> [Feature; 8] {
    let refuses_sockets = has_socket_lsm();
    let lacking = |name, present, note| Feature {
        name,
        present,
        required: false,
        note,
    };
    [
        lacking(
            "pid-namespace",
            fs::metadata("/proc/self/ns/pid").is_ok_and(|ns| ns.ino() == INITIAL_PID_NAMESPACE),
            "the agent is not in the initial PID namespace: process numbers of the kernel are not \
             the agent's, so it can't tell executables apart or know itself; use hostPID or \
             --pid=host",
        ),
        lacking(
            "bpf-jit",
            // Not shown in other network namespaces than the initial one.
            fs::read_to_string("/proc/sys/net/core/bpf_jit_enable")
                .map_or(true, |text| text.trim() != "0"),
            "programs are interpreted and so several times slower; set net.core.bpf_jit_enable=1",
        ),
        lacking(
            "kernel-reads",
            !read("/sys/kernel/security/lockdown").contains("[confidentiality]"),
            "the kernel is locked down for confidentiality: programs can't read executables, so \
             workloads with process selectors get no identity; use lockdown=integrity",
        ),
        lacking(
            "sock-destroy",
            destroy::supported().unwrap_or(false),
            "revoked connections are cut but not reset, so their processes wait for a time-out; use \
             a kernel with CONFIG_INET_DIAG_DESTROY=y",
        ),
        lacking(
            CONNECT_ERRNO,
            can_set_errno(),
            "what the policy of a listener on this host refuses ends in EPERM, also with `[refusal] local = \
             \"econnrefused\"`; use Linux 6.1 or newer",
        ),
        lacking(
            "packet-reads",
            refuses_sockets,
            "a process with CAP_NET_RAW can read packets of others through AF_PACKET sockets (sending is \
             judged); start Linux 6.0 or newer with BPF LSM (`bpf` in the kernel parameter `lsm=`), or take \
             CAP_NET_RAW away",
        ),
        lacking(
            "setsockopt-32-bit",
            !has_32_bit_calls(&fs::read(VMLINUX).unwrap_or_default()),
            "options that are set through the kernel's 32-bit interface pass no hook: a process with CAP_NET_RAW \
             can set PACKET_QDISC_BYPASS by it, or register the memory of an XDP socket, and then its frames are \
             not judged; take CAP_NET_RAW away, or refuse such calls (SystemCallArchitectures=native)",
        ),
        lacking(
            "vsock",
            refuses_sockets || !lists_protocol(&read("/proc/net/protocols"), "AF_VSOCK"),
            "AF_VSOCK sockets, between a virtual machine and its host, pass no hook and are not judged; start \
             Linux 6.0 or newer with BPF LSM, or unload the modules vsock* where nobody needs them",
        ),
    ]
}

fn required(name: &'static str, present: bool, note: &'static str) -> Feature {
    Feature {
        name,
        present,
        required: true,
        note,
    }
}

/// Empty where there is nothing to be read: the feature then counts as absent.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Whether the kernel runs 32-bit programs, by the names in its BTF: `net/compat.c` is there where it does.
fn has_32_bit_calls(btf: &[u8]) -> bool {
    const NAME: &[u8] = b"compat_sys_socketcall";
    btf.windows(NAME.len()).any(|part| part == NAME)
}

/// `6.1.0-18-amd64` as (6, 1).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn lists_filesystem(filesystems: &str, name: &str) -> bool {
    filesystems
        .lines()
        .any(|line| line.split_whitespace().last() == Some(name))
}

fn mounts_filesystem(mountinfo: &str, name: &str) -> bool {
    mountinfo.lines().any(|line| {
        let mut kind = line.split(' ').skip_while(|field| *field != "-").skip(1);
        kind.next() == Some(name)
    })
}

/// Whether a security module is active (`/sys/kernel/security/lsm`).
fn lists_module(modules: &str, name: &str) -> bool {
    modules.trim().split(',').any(|module| module == name)
}

fn lists_protocol(protocols: &str, name: &str) -> bool {
    protocols
        .lines()
        .any(|line| line.split_whitespace().next() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absent(features: &[Feature]) -> Vec<&'static str> {
        let absent = features.iter().filter(|feature| !feature.present);
        absent.map(|feature| feature.name).collect()
    }

    #[test]
    fn running_host_has_what_is_required() {
        let found = probe();
        assert_eq!(missing(&found), None, "{found:?}");
        let destroy = found.iter().find(|feature| feature.name == "sock-destroy");
        assert!(destroy.is_some_and(|feature| feature.present), "{found:?}");
        let errno = found.iter().find(|feature| feature.name == CONNECT_ERRNO);
        let expected = version(&read("/proc/sys/kernel/osrelease")) >= Some((6, 1));
        assert_eq!(
            errno.map(|feature| feature.present),
            Some(expected),
            "{found:?}"
        );
    }

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let of = |set: u64| {
            capabilities(&format!(
                "CapPrm:\tffffffffffffffff\nCapEff:\t{set:016x}\nX: 1"
            ))
        };
        let own = 1 << BPF | 1 << NET_ADMIN | 1 << PERFMON | 1 << SYS_PTRACE;
        assert_eq!(absent(&of(own)), ["cap-sys-admin"]);
        assert_eq!(
            absent(&of(1 << SYS_ADMIN)),
            ["cap-net-admin", "cap-sys-ptrace"]
        );
        assert_eq!(absent(&of(own | 1 << SYS_ADMIN)), [""; 0]);
        assert_eq!(absent(&of(0)).len(), 5);
        assert_eq!(absent(&capabilities("")).len(), 5);
    }

    #[test]
    fn message_names_each_missing_thing_and_its_remedy_only() {
        let features = capabilities("CapEff:\t0");
        let text = missing(&features).unwrap_or_default();
        for part in ["cap-bpf", "CAP_NET_ADMIN", "cap-perfmon", "CAP_SYS_PTRACE"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("cap-sys-admin:"), "{text}");
    }

    #[test]
    fn texts_of_the_kernel_are_understood() {
        assert_eq!(version("6.1.0-18-amd64\n"), Some((6, 1)));
        assert_eq!(version("5.15-rc1"), Some((5, 15)));
        assert_eq!(version("garbage"), None);
        assert!(version("5.4.0") < Some(FLOOR));
        assert!(None < Some(FLOOR));

        assert!(lists_filesystem(
            "nodev\tsysfs\nnodev\tbpf\n\text4\n",
            "bpf"
        ));
        assert!(!lists_filesystem("nodev\tbpffs\n", "bpf"));

        let mounts = "41 31 0:38 / /a rw shared:4 - cgroup2 cgroup2 rw\n";
        assert!(mounts_filesystem(mounts, "cgroup2"));
        assert!(!mounts_filesystem(
            "41 31 0:38 / /cgroup2 rw - tmpfs cgroup2 rw",
            "cgroup2"
        ));

        assert!(lists_module("capability,landlock,bpf\n", "bpf"));
        assert!(!lists_module("capability,bpfx", "bpf"));
        assert!(!lists_module("", "bpf"));

        let protocols = "protocol  size sockets\nAF_VSOCK  1216      0\nTCP 2304 9\n";
        assert!(lists_protocol(protocols, "AF_VSOCK"));
        assert!(!lists_protocol(protocols, "VSOCK"));

        let names = b"\0__x64_sys_socket\0__ia32_compat_sys_socketcall\0";
        assert!(has_32_bit_calls(names));
        assert!(!has_32_bit_calls(b"\0__x64_sys_socketcall\0"));
        assert!(!has_32_bit_calls(b""));
    }
}
