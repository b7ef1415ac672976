//! Ports: `443/tcp`, `8000-8100/tcp`, `icmp/8`, `tcp`, `ip/47`.

use ringfence_common::abi::tuple::{ICMP, ICMPV6, TCP, UDP};

use super::{report::Fault, suggest};
use crate::model::Ports;

const FORMS: &str = "write it as \"443/tcp\", \"8000-8100/udp\", \"tcp\", \"udp\", \"icmp/8\", \"icmpv6/128\", \"icmp\" or \"ip/47\"";
const PROTOCOLS: [&str; 5] = ["tcp", "udp", "icmp", "icmpv6", "ip"];

pub(super) fn parse(text: &str) -> Result<Ports, Fault> {
    let Some((left, right)) = text.split_once('/') else {
        return whole(text);
    };
    match (left, right) {
        ("icmp", number) => icmp(text, ICMP, number),
        ("icmpv6", number) => icmp(text, ICMPV6, number),
        ("ip", number) => protocol(text, number),
        (range, "tcp") => ports(text, TCP, range),
        (range, "udp") => ports(text, UDP, range),
        ("tcp" | "udp", range) => Err(Fault::new(
            format!("{text:?} has protocol and port in the wrong order"),
            format!("write \"{range}/{left}\""),
        )),
        (number, "icmp" | "icmpv6" | "ip") => Err(Fault::new(
            format!("{text:?} has protocol and number in the wrong order"),
            format!("write \"{right}/{number}\""),
        )),
        (_, unknown) => Err(unknown_protocol(text, unknown)),
    }
}

fn whole(text: &str) -> Result<Ports, Fault> {
    let protocol = match text {
        "tcp" => TCP,
        "udp" => UDP,
        "icmp" => ICMP,
        "icmpv6" => ICMPV6,
        _ if text.starts_with(|first: char| first.is_ascii_digit()) => {
            return Err(Fault::new(
                format!("port {text:?} has no protocol"),
                format!("write \"{text}/tcp\" or \"{text}/udp\""),
            ));
        }
        "ip" => {
            return Err(Fault::new(
                "\"ip\" names no protocol",
                "write its number, such as \"ip/47\"; leave `ports` out to cover every protocol",
            ));
        }
        _ => return Err(unknown_protocol(text, text)),
    };
    Ok(every(protocol))
}

fn ports(text: &str, protocol: u8, range: &str) -> Result<Ports, Fault> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (Some(first), Some(last)) = (number::<u16>(first), number::<u16>(last)) else {
        return Err(Fault::new(
            format!("{text:?} is not a port or a range of ports"),
            "write numbers from 1 to 65535, such as \"443/tcp\" or \"8000-8100/tcp\"",
        ));
    };
    if first > last {
        return Err(Fault::new(
            format!("{text:?} is a range that ends before it starts"),
            format!("swap the ends: \"{last}-{first}/{}\"", name(protocol)),
        ));
    }
    if first == 0 {
        return Err(Fault::new(
            format!("{text:?} has port 0, which no packet carries"),
            format!("start at 1, or write {:?} for every port", name(protocol)),
        ));
    }
    Ok(Ports {
        protocol,
        first,
        last,
    })
}

fn icmp(text: &str, protocol: u8, kind: &str) -> Result<Ports, Fault> {
    let Some(kind) = number::<u8>(kind) else {
        return Err(Fault::new(
            format!("{text:?} is not an ICMP type"),
            format!(
                "write a number from 0 to 255, or {:?} for every type",
                name(protocol)
            ),
        ));
    };
    Ok(Ports {
        protocol,
        first: u16::from(kind),
        last: u16::from(kind),
    })
}

fn protocol(text: &str, protocol: &str) -> Result<Ports, Fault> {
    match number::<u8>(protocol) {
        None | Some(0) => Err(Fault::new(
            format!("{text:?} is not a protocol"),
            "write a protocol number from 1 to 255; leave `ports` out to cover every protocol",
        )),
        Some(protocol) => Ok(every(protocol)),
    }
}

const fn every(protocol: u8) -> Ports {
    Ports {
        protocol,
        first: 0,
        last: u16::MAX,
    }
}

const fn name(protocol: u8) -> &'static str {
    match protocol {
        TCP => "tcp",
        UDP => "udp",
        ICMP => "icmp",
        _ => "icmpv6",
    }
}

/// Digits only: `parse` alone would take a sign.
fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn unknown_protocol(text: &str, protocol: &str) -> Fault {
    let remedy = match suggest::nearest(protocol, PROTOCOLS) {
        Some(near) => format!("did you mean `{near}`?"),
        None => FORMS.to_owned(),
    };
    Fault::new(format!("unknown protocol {protocol:?} in {text:?}"), remedy)
}
