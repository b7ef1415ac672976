//! What a comparison must have reached, so that its success means something.

macro_rules! facts {
    ($($(#[doc = $text:literal])+ $fact:ident,)+) => {
        /// Something that a case exercised; a comparison must have reached every one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fact { $($(#[doc = $text])+ $fact,)+ }

        impl Fact {
            /// Every fact.
            pub const ALL: &'static [Self] = &[$(Self::$fact),+];
        }
    };
}

facts! {
    /// An allow rule decided.
    AllowRule,
    /// A deny rule decided.
    DenyRule,
    /// A deny rule decided over an allow rule.
    DenyOverAllow,
    /// No rule matched in a restricted direction.
    DefaultDeny,
    /// The draft layer's verdict differs.
    DraftDiffers,
    /// A rule that had allowed it has expired.
    Expired,
    /// The same, and it expired after the compilation.
    ExpiredWhileLoaded,
    /// An expired deny rule no longer counts.
    DenyExpired,
    /// A rule would match, but its policy has not begun.
    NotYet,
    /// No policy selects the workload: allowed.
    UnselectedAllow,
    /// No policy selects the workload: denied.
    UnselectedDeny,
    /// The workload talks to itself.
    SelfAllow,
    /// The workload talks to itself and may not.
    SelfRefused,
    /// No policy restricts the direction.
    DirectionAllow,
    /// The process belongs to no workload.
    Host,
    /// Two or more different ranges cover the address.
    CidrNested,
    /// An exception takes the address out of a range.
    Except,
    /// A NAT64 address was judged as the IPv4 address inside.
    Nat64,
    /// An IPv6 range that contains the mapped space did not cover an IPv4 address.
    V4OutsideV6,
    /// A rule for verified peers matched.
    VerifiedOnly,
    /// A rule for verified peers did not match, because the peer was not verified.
    VerifiedRefused,
    /// A range of ports matched.
    PortRange,
    /// A whole protocol matched.
    WholeProtocol,
    /// A rule without ports matched.
    AnyPort,
    /// A rule without peers matched.
    AnyPeer,
    /// An empty peer list matched nothing.
    EmptyPeerList,
    /// An empty ports list matched nothing.
    EmptyPortsList,
    /// An entity matched.
    Entity,
    /// Labels matched.
    Labels,
    /// A listen rule decided.
    Listen,
}
