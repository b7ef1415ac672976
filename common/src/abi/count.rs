//! Counters of losses and failures inside the programs.

/// Index into `COUNTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Count {
    /// Events emitted.
    EventSent = 0,
    /// Events lost because the ring buffer was full.
    EventLost = 1,
    /// Socket storage could not be made.
    StorageFailed = 2,
    /// The flow map was full: the flow was judged without a cache.
    FlowMapFull = 3,
    /// A cgroup was not known and an ancestor stood in for it.
    AncestorWalk = 4,
    /// Reading the executable of a task failed.
    ExecutableUnreadable = 5,
    /// A packet could not be parsed.
    PacketMalformed = 6,
    /// Sockets or packets held because the executable is pending.
    Pending = 7,
    /// Flows judged anew because the generation or the expiry had passed.
    Rejudged = 8,
    /// Reading the groups of a task failed.
    GroupsUnreadable = 9,
    /// Refusals that were not recorded, because the same or too many others of the workload were lately.
    RefusalFolded = 10,
    /// Refused packets that were not answered, because as many as may be were or the ring was full.
    AnswerSuppressed = 11,
}

/// Number of counters.
pub const LEN: u32 = 12;

impl Count {
    /// Every counter with its metric name.
    pub const ALL: [(Self, &'static str); LEN as usize] = [
        (Self::EventSent, "event-sent"),
        (Self::EventLost, "event-lost"),
        (Self::StorageFailed, "storage-failed"),
        (Self::FlowMapFull, "flow-map-full"),
        (Self::AncestorWalk, "ancestor-walk"),
        (Self::ExecutableUnreadable, "executable-unreadable"),
        (Self::PacketMalformed, "packet-malformed"),
        (Self::Pending, "pending"),
        (Self::Rejudged, "rejudged"),
        (Self::GroupsUnreadable, "groups-unreadable"),
        (Self::RefusalFolded, "refusal-folded"),
        (Self::AnswerSuppressed, "answer-suppressed"),
    ];
}
