//! The one table of verdicts and reasons: kernel, metrics, logs, proto and docs use these numbers.

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Verdict {
    /// Passes.
    Allow = 1,
    /// Refused.
    Deny = 2,
    /// Would be refused, passes because the agent runs in draft mode.
    Audit = 3,
}

impl Verdict {
    /// The verdict with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Allow),
            2 => Some(Self::Deny),
            3 => Some(Self::Audit),
            _ => None,
        }
    }

    /// Its name in records, metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Audit => "audit",
        }
    }
}

macro_rules! reasons {
    ($($variant:ident = $number:literal, $name:literal, $text:literal;)+) => {
        /// Why it was decided so.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason { $(#[doc = $text] $variant = $number),+ }

        impl Reason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The reason with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }

            /// Its name in records, metrics and logs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

reasons! {
    AllowedByRule = 1, "rule-allow", "A rule allows it.";
    AllowedUnselected = 2, "unselected-allow", "No policy selects the workload, and unselected workloads are allowed.";
    AllowedSelf = 3, "self-allow", "A workload may talk to itself.";
    AllowedHost = 4, "host-allow", "The process belongs to no workload.";
    AllowedDirection = 5, "direction-allow", "No policy of the workload restricts this direction.";
    AllowedFailsafe = 6, "failsafe-allow", "The failsafe list of the agent configuration allows it.";
    AllowedOwnChannel = 7, "own-channel-allow", "It is the agent's own channel.";
    DeniedByRule = 8, "rule-deny", "A rule denies it.";
    DeniedDefault = 9, "default-deny", "No rule allows it.";
    DeniedExpired = 10, "expired-deny", "The rule that allowed it has expired.";
    DeniedUnselected = 11, "unselected-deny", "No policy selects the workload, and unselected workloads are denied.";
    DeniedRawSocket = 12, "raw-socket-deny", "Raw sockets are refused to a workload that a policy restricts.";
    DeniedProtocol = 13, "protocol-deny", "Sockets of this protocol are refused to a workload that a policy restricts.";
    DeniedMalformed = 14, "malformed-deny", "The packet could not be parsed.";
    DeniedFragment = 15, "fragment-deny", "A fragment without its transport header can't be judged.";
    DeniedPending = 16, "pending-deny", "The executable is not judged yet.";
    DeniedNoIdentity = 17, "no-identity-deny", "The process has no identity.";
    DeniedNoStorage = 18, "no-storage-deny", "Socket storage could not be made.";
    DeniedDetour = 19, "detour-deny", "IPv4 options and IPv6 routing headers lead a packet past its destination; they are refused to a workload that a policy restricts.";
    DeniedFrame = 20, "frame-deny", "Frames of packet and XDP sockets meet no rule; they are refused to a workload that a policy restricts.";
    DeniedPort = 21, "port-deny", "Another workload, which a policy selects, listens on the port.";
}

/// Slots of `REASONS` for one direction; one more than the highest reason.
pub const SLOTS: u32 = 32;

/// Index into `REASONS`.
#[must_use]
pub const fn slot(direction: u8, reason: u8) -> u32 {
    (direction as u32 & 3) * SLOTS + (reason as u32 & (SLOTS - 1))
}
