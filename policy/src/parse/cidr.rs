//! Address ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::report::Fault;

/// Parses a range whose host bits are zero and whose addresses exist as such on the wire.
pub(super) fn parse(text: &str) -> Result<IpNet, Fault> {
    let Ok(net) = text.parse::<IpNet>() else {
        let remedy = text.parse::<IpAddr>().map_or_else(
            |_| "write it as \"10.20.0.0/16\" or \"2001:db8::/32\"".to_owned(),
            |address| format!("write \"{}\"", IpNet::from(address)),
        );
        return Err(Fault::new(
            format!("{text:?} is not an address range"),
            remedy,
        ));
    };
    if let IpNet::V6(v6) = net {
        refuse_embedded_v4(text, v6)?;
    }
    if net.trunc() != net {
        return Err(Fault::new(
            format!("{text:?} has bits set beyond its prefix"),
            format!(
                "write \"{}\", or \"{}\" for the one address",
                net.trunc(),
                IpNet::from(net.addr())
            ),
        ));
    }
    Ok(net)
}

/// Why `inner` can't be an exception of `net`.
pub(super) fn outside(net: IpNet, inner: IpNet) -> Option<Fault> {
    if net == inner {
        return Some(Fault::new(
            format!("exception \"{inner}\" leaves nothing of the range"),
            "remove the peer, or except less",
        ));
    }
    if net.contains(&inner) {
        return None;
    }
    Some(Fault::new(
        format!("exception \"{inner}\" is not inside \"{net}\""),
        "remove it, or correct one of them",
    ))
}

/// Traffic to these IPv6 addresses is judged by the IPv4 address inside them.
fn refuse_embedded_v4(text: &str, net: Ipv6Net) -> Result<(), Fault> {
    let kind = match net.addr().segments() {
        [0, 0, 0, 0, 0, 0xffff, _, _] => "an IPv4-mapped",
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => "a NAT64",
        _ => return Ok(()),
    };
    let Some(prefix) = net.prefix_len().checked_sub(96) else {
        return Ok(());
    };
    let inside = Ipv4Net::new(embedded(net.addr()), prefix).map(|net| net.trunc());
    Err(Fault::new(
        format!("{text:?} is {kind} range; such traffic is judged by its IPv4 address"),
        inside.map_or_else(
            |_| "write the IPv4 range".to_owned(),
            |net| format!("write \"{net}\""),
        ),
    ))
}

fn embedded(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}
