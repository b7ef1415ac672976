//! Policies and their rules.

use std::collections::BTreeMap;

use ipnet::IpNet;
use ringfence_common::abi::{Direction, Identity};
use time::OffsetDateTime;

/// A policy selects workloads by label and holds rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Unique name.
    pub name: String,
    /// Labels that a workload must carry, all of them; never empty.
    pub applies_to: BTreeMap<String, String>,
    /// Only reported, never enforced.
    pub draft: bool,
    /// Holds from this time on.
    pub not_before: Option<OffsetDateTime>,
    /// Holds before this time.
    pub not_after: Option<OffsetDateTime>,
    /// Directions that are default-deny even without a rule.
    pub default_deny: Vec<Direction>,
    /// Its rules, in the order of the document.
    pub rules: Vec<Rule>,
    /// Document that declares it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
}

/// Allow or deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuleKind {
    /// Allows.
    Allow,
    /// Denies, over every allow.
    Deny,
}

/// The table of a document that a rule stands in: `egress`, `ingress`, `deny-egress`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Section {
    /// Direction judged.
    pub direction: Direction,
    /// Allow or deny.
    pub kind: RuleKind,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where in the policy it stands.
    pub section: Section,
    /// Position within its section, from 0; with policy and section it names the rule.
    pub index: usize,
    /// Peers; `None` covers every peer, an empty list none.
    pub peers: Option<Vec<Peer>>,
    /// Ports; `None` covers every protocol and port, an empty list none.
    pub ports: Option<Vec<Ports>>,
    /// Line, from 1.
    pub line: usize,
}

/// One peer of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Workloads that carry all of these labels; never empty.
    Labels {
        /// Labels.
        labels: BTreeMap<String, String>,
        /// Verified peers only.
        verified: bool,
    },
    /// One workload by name; it exists.
    Workload {
        /// Name.
        name: String,
        /// Verified peers only.
        verified: bool,
    },
    /// An address range without its exceptions.
    Cidr {
        /// The range, host bits zero.
        net: IpNet,
        /// Ranges inside it that are left out.
        except: Vec<IpNet>,
    },
    /// A reserved identity: `host`, `world`, `remote-host`.
    Entity(Identity),
}

/// Ports of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    /// IANA protocol number (6, 17, 1, 58 or another by `ip/N`).
    pub protocol: u8,
    /// First port (ICMP: type).
    pub first: u16,
    /// Last port, not below the first.
    pub last: u16,
}

impl Section {
    /// Its key in a policy document.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match (self.kind, self.direction) {
            (RuleKind::Allow, Direction::Egress) => "egress",
            (RuleKind::Allow, Direction::Ingress) => "ingress",
            (RuleKind::Allow, Direction::Listen) => "listen",
            (RuleKind::Deny, Direction::Egress) => "deny-egress",
            (RuleKind::Deny, Direction::Ingress) => "deny-ingress",
            (RuleKind::Deny, Direction::Listen) => "deny-listen",
        }
    }

    /// Names the rule at this position: `egress[0]`.
    #[must_use]
    pub fn place(self, index: usize) -> String {
        format!("{}[{index}]", self.name())
    }
}
