//! What stands between client and server.

/// One configuration that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Neither Ringfence nor nftables.
    Bare,
    /// The same once more: what differs between the two is noise.
    Again,
    /// Attached; no policy selects the workloads.
    NoPolicy,
    /// Attached, allow lists with that many more entries, of that many identities.
    Entries(u32, u32),
    /// Attached, with draft policies beside the enforced ones.
    Draft,
    /// The same policy by nftables, that rule being the last of so many.
    Nft { rules: u32, tracked: bool },
}

pub const TEN: Variant = Variant::Entries(10, 1);
pub const MANY: Variant = Variant::Entries(100_000, 10_000);
pub const NFT_ONE: Variant = nft(1, false);
pub const NFT_MANY: Variant = nft(1_000, false);

const fn nft(rules: u32, tracked: bool) -> Variant {
    Variant::Nft { rules, tracked }
}

/// Those of a short run.
pub const SHORT: [Variant; 8] = [
    Variant::Bare,
    Variant::Again,
    Variant::NoPolicy,
    TEN,
    MANY,
    Variant::Draft,
    NFT_ONE,
    NFT_MANY,
];

/// All.
pub const ALL: [Variant; 11] = [
    Variant::Bare,
    Variant::Again,
    Variant::NoPolicy,
    TEN,
    Variant::Entries(1_000, 100),
    MANY,
    Variant::Draft,
    NFT_ONE,
    nft(100, false),
    NFT_MANY,
    nft(1_000, true),
];

impl Variant {
    /// As tables show it, and as JSON has it.
    pub fn name(self) -> String {
        match self {
            Self::Bare => "without".to_owned(),
            Self::Again => "without, again".to_owned(),
            Self::NoPolicy => "no policy".to_owned(),
            Self::Entries(entries, _) => format!("{entries} entries"),
            Self::Draft => "draft beside".to_owned(),
            Self::Nft { rules, tracked } => {
                let how = if tracked { ", conntrack" } else { "" };
                format!("nftables, {rules} rules{how}")
            }
        }
    }

    /// A short word for names of cgroups.
    pub fn word(self) -> String {
        match self {
            Self::Bare => "bare".to_owned(),
            Self::Again => "again".to_owned(),
            Self::NoPolicy => "none".to_owned(),
            Self::Entries(entries, _) => format!("entries{entries}"),
            Self::Draft => "draft".to_owned(),
            Self::Nft { rules, tracked } => {
                format!("nft{rules}{}", if tracked { "t" } else { "" })
            }
        }
    }
}
