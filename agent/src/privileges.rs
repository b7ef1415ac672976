//! The privileges that the agent keeps.
//!
//! Whatever it was started with, from its first moment it has at most [`NEEDED`], and neither it nor what it might run can get
//! more (capabilities(7), `no_new_privs`). Called before there are threads: each has its own capabilities.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// What the agent needs, and why; the same as in the systemd unit and the Kubernetes manifest.
pub const NEEDED: [(CapabilitySet, &str); 7] = [
    // Load programs that read kernel structures.
    (CapabilitySet::BPF, "BPF"),
    (CapabilitySet::PERFMON, "PERFMON"),
    // Attach them, reset connections.
    (CapabilitySet::NET_ADMIN, "NET_ADMIN"),
    // Mount bpffs, enter network namespaces.
    (CapabilitySet::SYS_ADMIN, "SYS_ADMIN"),
    // Executables and sockets of other processes.
    (CapabilitySet::SYS_PTRACE, "SYS_PTRACE"),
    // Executables and tokens that are not readable by all.
    (CapabilitySet::DAC_READ_SEARCH, "DAC_READ_SEARCH"),
    // Answer what is refused, with `[refusal] remote`; else see `drop_sending`.
    (CapabilitySet::NET_RAW, "NET_RAW"),
];

/// Drops what is not needed, for good.
///
/// # Errors
/// What could not be dropped, in words; the rest is.
pub fn drop_others() -> Result<(), String> {
    let needed = NEEDED
        .iter()
        .fold(CapabilitySet::empty(), |set, (one, _)| set | *one);
    let failed = |what: &str, error: rustix::io::Errno| format!("{what}: {error}");
    set_no_new_privs(true).map_err(|error| failed("no_new_privs", error))?;
    let own = capabilities(None).map_err(|error| failed("capabilities", error))?;
    // Without it the bounding set is the service manager's affair.
    if own.effective.contains(CapabilitySet::SETPCAP) {
        for bit in 0..u64::BITS {
            let one = CapabilitySet::from_bits_retain(1 << bit);
            if needed.contains(one) {
                continue;
            }
            match remove_capability_from_bounding_set(one) {
                // The kernel has none of that number, nor of those above.
                Err(rustix::io::Errno::INVAL) => break,
                result => result.map_err(|error| failed("the bounding set", error))?,
            }
        }
    }
    clear_ambient_capability_set().map_err(|error| failed("the ambient set", error))?;
    keep(own.permitted & needed).map_err(|error| failed("capabilities", error))
}

/// Drops what only answers to refused packets need, for good: an agent that sends none can make no raw socket. It
/// stays in the bounding set, from which nothing can be gained after `no_new_privs`.
///
/// # Errors
/// What could not be dropped, in words.
pub fn drop_sending() -> Result<(), String> {
    let without = |own: CapabilitySets| keep(own.permitted - CapabilitySet::NET_RAW);
    let dropped = capabilities(None).and_then(without);
    dropped.map_err(|error| format!("CAP_NET_RAW: {error}"))
}

fn keep(kept: CapabilitySet) -> rustix::io::Result<()> {
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)
}

#[cfg(test)]
mod tests {
    use super::NEEDED;

    /// Names in a list that begins after `start`, up to `end`.
    fn listed(text: &str, start: &str, end: &str) -> Vec<String> {
        let list = text.split_once(start).map_or("", |(_, rest)| rest);
        let list = list.split_once(end).map_or(list, |(list, _)| list);
        let words = list
            .lines()
            .map(|line| line.split('#').next().unwrap_or(""))
            .flat_map(str::split_whitespace);
        let mut names: Vec<String> = words
            .map(|word| word.trim_start_matches("CAP_").to_owned())
            .filter(|word| word != "-")
            .collect();
        names.sort();
        names
    }

    #[test]
    fn unit_manifest_and_documentation_grant_what_is_kept() {
        let mut needed: Vec<String> = NEEDED.iter().map(|(_, name)| (*name).to_owned()).collect();
        needed.sort();
        let unit = include_str!("../../config/systemd/ringfence.service");
        assert_eq!(listed(unit, "\nCapabilityBoundingSet=", "\n"), needed);
        assert!(unit.contains("\nNoNewPrivileges=yes\n"));
        let manifest = include_str!("../../config/kubernetes/daemonset.yaml");
        let added = listed(manifest, "              add:\n", "          #");
        assert_eq!(added, needed);
        assert!(manifest.contains("drop: [\"ALL\"]"));
        assert!(manifest.contains("allowPrivilegeEscalation: false"));
        let operations = include_str!("../../docs/operations.md");
        for name in needed {
            assert!(operations.contains(&format!("`CAP_{name}`")), "{name}");
        }
    }
}
