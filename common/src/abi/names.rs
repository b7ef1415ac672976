//! Names of maps and programs, once: the loader, the tests and the tools use these.

/// Active generation, `Array<u64>` with one element.
pub const ACTIVE: &str = "ACTIVE";
/// [`super::Settings`], `Array` with one element.
pub const SETTINGS: &str = "SETTINGS";
/// Failsafe list, `Array` of [`super::FailsafeEntry`].
pub const FAILSAFE: &str = "FAILSAFE";
/// cgroup id -> [`super::CgroupEntry`].
pub const CGROUPS: &str = "CGROUPS";
/// [`super::ChildKey`] -> [`super::CgroupEntry`] of a cgroup that is not known yet.
pub const CHILDREN: &str = "CHILDREN";
/// [`super::ExecutableKey`] -> executable class (u32, 0 = matches no selector).
pub const EXECUTABLES: &str = "EXECUTABLES";
/// [`super::ProcessKey`] -> identity (u32).
pub const PROCESSES: &str = "PROCESSES";
/// Process class (u32) -> [`super::ClassGroups`].
pub const GROUPS: &str = "GROUPS";
/// [`super::LocalKey`] -> [`super::settings::OWN_ADDRESS`] or [`super::settings::BROADCAST`].
pub const LOCAL_ADDRESSES: &str = "LOCAL_ADDRESSES";
/// [`super::SlotKey`] -> [`super::Header`].
pub const HEADERS: &str = "HEADERS";
/// [`super::SlotKey`] -> hash of [`super::RuleKey`] -> [`super::RuleEntry`].
pub const RULES: &str = "RULES";
/// [`super::SlotKey`] -> longest-prefix trie of [`super::CidrKey`] -> address class (u32).
pub const CIDRS: &str = "CIDRS";
/// Socket storage of [`super::SocketState`].
pub const SOCKETS: &str = "SOCKETS";
/// Datagram and ICMP flows: [`super::FlowKey`] -> [`super::FlowEntry`].
pub const FLOWS: &str = "FLOWS";
/// Flows that found no room in [`FLOWS`] (LRU): their replies still pass.
pub const OVERFLOW: &str = "OVERFLOW";
/// Who sent a datagram that stays on this host (LRU): [`super::SenderKey`] -> [`super::Sender`].
pub const SENDERS: &str = "SENDERS";
/// Refusals recorded lately (LRU), so that a retransmission is not a second record:
/// [`super::FlowKey`] -> [`super::Refusal`].
pub const DENIED: &str = "DENIED";
/// How many refusals of a workload may be recorded (LRU): identity with the highest bit set, or cgroup id ->
/// [`super::Refuser`].
pub const REFUSERS: &str = "REFUSERS";
/// Events to user space, ring buffer of [`super::Event`].
pub const EVENTS: &str = "EVENTS";
/// Per-CPU counters indexed by [`super::Count`] and by verdict.
pub const COUNTS: &str = "COUNTS";
/// Per-CPU counters indexed by direction and [`super::Reason`].
pub const REASONS: &str = "REASONS";

/// Whether the programs refuse anything, `Array` of one u32: 0 until all of them are attached for the first time.
pub const ARMED: &str = "ARMED";
/// [`super::Handoff`] for each CPU: the judgement of a SYN or ACK, from the ingress hook to the next hook.
pub const HANDOFF: &str = "HANDOFF";
/// Refused packets that user space answers, ring buffer of [`super::Unanswered`]. Not pinned: without an agent
/// nobody answers.
pub const UNANSWERED: &str = "UNANSWERED";
/// How many refused packets of a source may be answered (LRU): address -> [`super::Refuser`].
pub const SOURCES: &str = "SOURCES";
/// How many refused packets may be answered now, `Array` of one [`super::Refuser`].
pub const ANSWERED: &str = "ANSWERED";
/// Global that says how refusals are answered, [`super::Answering`].
pub const ANSWERING: &str = "ANSWERING";
/// Global with the running kernel's structure offsets, [`super::Offsets`].
pub const OFFSETS: &str = "OFFSETS";

/// Every map that is pinned and so outlives the agent.
pub const PINNED: [&str; 23] = [
    ACTIVE,
    ARMED,
    SETTINGS,
    FAILSAFE,
    CGROUPS,
    CHILDREN,
    EXECUTABLES,
    PROCESSES,
    GROUPS,
    LOCAL_ADDRESSES,
    HEADERS,
    RULES,
    CIDRS,
    SOCKETS,
    FLOWS,
    OVERFLOW,
    SENDERS,
    DENIED,
    REFUSERS,
    EVENTS,
    COUNTS,
    REASONS,
    HANDOFF,
];
