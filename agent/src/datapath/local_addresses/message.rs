//! One message of `RTM_GETADDR` (rtnetlink(7)), as `inet_fill_ifaddr` and `inet6_fill_ifaddr` write it.

use std::net::Ipv4Addr;

use ringfence_common::{
    abi::settings::{BROADCAST, OWN_ADDRESS},
    logic::address::{self, is_loopback},
};

use crate::datapath::netlink::attributes;

/// `struct ifaddrmsg`.
const MESSAGE: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
/// From here on a network has no address for broadcasts.
const TOO_LONG: u8 = 31;

/// The addresses that it brings, each with what it is; none of loopback. What is malformed brings none.
pub(super) fn addresses(message: &[u8]) -> Vec<([u8; 16], u8)> {
    let [family, prefix, ..] = *message else {
        return Vec::new();
    };
    let (mut local, mut address, mut broadcast) = (None, None, None);
    for (kind, value) in attributes(message.get(MESSAGE..).unwrap_or_default()) {
        match kind {
            IFA_LOCAL => local = Some(value),
            IFA_ADDRESS => address = Some(value),
            IFA_BROADCAST => broadcast = Some(value),
            _ => {}
        }
    }
    // Where there is a peer, `IFA_ADDRESS` is the peer's.
    let own = local.or(address);
    match i32::from(family) {
        libc::AF_INET => {
            let (own, network) = (own.and_then(v4), address.and_then(v4));
            own.map_or_else(Vec::new, |own| {
                with_broadcasts(own, network, prefix, broadcast.and_then(v4))
            })
        }
        libc::AF_INET6 => own
            .and_then(|own| <[u8; 16]>::try_from(own).ok())
            .filter(|own| !is_loopback(own))
            .map(|own| vec![(own, OWN_ADDRESS)])
            .unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// With the broadcast addresses that come with an IPv4 address: that of its network, for which the kernel makes a
/// route by itself (`fib_add_ifaddr`), and the one that was set with it.
fn with_broadcasts(
    own: Ipv4Addr,
    network: Option<Ipv4Addr>,
    prefix: u8,
    set: Option<Ipv4Addr>,
) -> Vec<([u8; 16], u8)> {
    let mapped = |address: Ipv4Addr| address::map_v4(address.octets());
    // Loopback is known, and its broadcasts are needed by nobody.
    if own.is_loopback() {
        return Vec::new();
    }
    let mut all = vec![(mapped(own), OWN_ADDRESS)];
    if prefix >= TOO_LONG {
        return all;
    }
    let hosts = u32::MAX >> prefix;
    let whole = network.map(|network| Ipv4Addr::from(u32::from(network) | hosts));
    let broadcasts = [whole, set.filter(|set| !set.is_unspecified())];
    all.extend(
        broadcasts
            .into_iter()
            .flatten()
            .map(|it| (mapped(it), BROADCAST)),
    );
    all
}

fn v4(value: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: u8 = 2;
    const V6: u8 = 10;

    fn message(family: u8, prefix: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut out = vec![family, prefix, 0, 0, 1, 0, 0, 0];
        for (kind, value) in attributes {
            let length = u16::try_from(value.len() + 4).unwrap_or(0);
            out.extend(length.to_ne_bytes());
            out.extend(kind.to_ne_bytes());
            out.extend(*value);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        out
    }

    fn v4(address: [u8; 4], kind: u8) -> ([u8; 16], u8) {
        (address::map_v4(address), kind)
    }

    #[test]
    fn an_address_comes_with_the_broadcasts_of_its_network() {
        let own: (u16, &[u8]) = (IFA_LOCAL, &[10, 7, 1, 2]);
        let same: (u16, &[u8]) = (IFA_ADDRESS, &[10, 7, 1, 2]);
        let set: (u16, &[u8]) = (IFA_BROADCAST, &[10, 7, 1, 9]);
        let is_own = v4([10, 7, 1, 2], OWN_ADDRESS);
        let whole = v4([10, 7, 1, 255], BROADCAST);
        let is_set = v4([10, 7, 1, 9], BROADCAST);
        assert_eq!(addresses(&message(V4, 24, &[same, own])), [is_own, whole]);
        assert_eq!(
            addresses(&message(V4, 24, &[same, own, set])),
            [is_own, whole, is_set]
        );
        for prefix in [31, 32, 255] {
            assert_eq!(addresses(&message(V4, prefix, &[same, own, set])), [is_own]);
        }
        let peer: (u16, &[u8]) = (IFA_ADDRESS, &[10, 9, 1, 2]);
        let theirs = v4([10, 9, 1, 255], BROADCAST);
        assert_eq!(addresses(&message(V4, 24, &[peer, own])), [is_own, theirs]);
        let everything = addresses(&message(V4, 0, &[same, own]));
        assert_eq!(everything, [is_own, v4([255; 4], BROADCAST)]);
    }

    #[test]
    fn an_ipv6_address_is_not_that_of_its_peer() {
        let (own, peer) = ([0xfd; 16], [0xfe; 16]);
        let only = message(V6, 64, &[(IFA_ADDRESS, &own)]);
        assert_eq!(addresses(&only), [(own, OWN_ADDRESS)]);
        let both = message(V6, 64, &[(IFA_LOCAL, &own), (IFA_ADDRESS, &peer)]);
        assert_eq!(addresses(&both), [(own, OWN_ADDRESS)]);
    }

    #[test]
    fn loopback_other_families_and_pieces_bring_nothing() {
        assert_eq!(
            addresses(&message(V4, 8, &[(IFA_LOCAL, &[127, 0, 0, 1])])),
            []
        );
        let mut loopback = [0; 16];
        loopback[15] = 1;
        assert_eq!(
            addresses(&message(V6, 128, &[(IFA_ADDRESS, &loopback)])),
            []
        );
        assert_eq!(
            addresses(&message(17, 24, &[(IFA_LOCAL, &[10, 7, 1, 2])])),
            []
        );
        assert_eq!(addresses(&message(V4, 24, &[(IFA_LOCAL, &[10, 7, 1])])), []);
        let whole = message(V4, 24, &[(IFA_ADDRESS, &[10, 7, 1, 2])]);
        for end in 0..whole.len() {
            assert_eq!(addresses(whole.get(..end).unwrap_or_default()), []);
        }
    }
}
