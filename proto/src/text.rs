//! Text that others chose (names of processes, cgroups, files, hosts), made fit for a terminal.
//!
//! A terminal obeys control characters of both blocks (C0, and C1 from U+0080 to U+009F), and marks of
//! writing direction show text in another order than it has. Both command lines clean alike.

use std::{error::Error, fmt::Write as _, net::IpAddr};

use crate::v1::Endpoint;

/// Whether a terminal would obey the character, or show what follows in another order (UAX 9).
#[must_use]
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'
                | '\u{2029}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

/// The text with U+FFFD in place of what is hostile.
#[must_use]
pub fn clean(text: &str) -> String {
    text.chars().map(harmless).collect()
}

/// The same for a message of several lines: they stay lines.
#[must_use]
pub fn clean_lines(text: &str) -> String {
    let keep = |c| if c == '\n' { c } else { harmless(c) };
    text.chars().map(keep).collect()
}

/// JSON with `\uXXXX` in place of what is hostile in its strings. Writers of JSON escape only the first
/// control block, because no more is asked of them (RFC 8259, section 7). The value stays the same.
#[must_use]
pub fn escape_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        // Outside of strings, JSON has no other character of these than the line feed.
        if is_hostile(c) && c != '\n' {
            let _infallible = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// An error and its causes in one text. A cause that the text before it tells already is left out: many
/// messages hold theirs, in front of the remedy.
#[must_use]
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let cause = error.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        next = error.source();
    }
    text
}

/// A number and what it counts, as in `1 rule` and `2 rules`.
#[must_use]
pub fn counted(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

/// The address of an [`Endpoint`] as it is written; hexadecimal where it is none.
#[must_use]
pub fn address(bytes: &[u8]) -> String {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let found = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    found.map_or_else(|_| format!("{bytes:02x?}"), |address| address.to_string())
}

/// Protocol, address and port of an endpoint, as in `tcp 10.0.0.1:80` and `udp [::]:53`.
#[must_use]
pub fn listening(endpoint: &Endpoint) -> String {
    let protocol = match endpoint.protocol {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        other => format!("ip/{other}"),
    };
    let address = address(&endpoint.address);
    match endpoint.address.len() {
        16 => format!("{protocol} [{address}]:{}", endpoint.port),
        _ => format!("{protocol} {address}:{}", endpoint.port),
    }
}

fn harmless(c: char) -> char {
    if is_hostile(c) {
        char::REPLACEMENT_CHARACTER
    } else {
        c
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: [char; 9] = [
        '\0', '\u{1b}', '\u{7f}', '\u{80}', '\u{9b}', '\u{9f}', '\u{202e}', '\u{2066}', '\u{2028}',
    ];

    #[test]
    fn what_a_terminal_obeys_is_replaced_and_the_rest_stays() {
        for c in HOSTILE {
            assert_eq!(clean(&format!("a{c}b")), "a\u{fffd}b", "{c:?}");
            assert_eq!(clean_lines(&format!("a{c}\nb")), "a\u{fffd}\nb", "{c:?}");
        }
        let harmless = "é 日本 א\u{a0}~";
        assert_eq!(clean(harmless), harmless);
        assert_eq!(clean("a\nb"), "a\u{fffd}b");
    }

    #[test]
    fn a_cause_is_told_once() {
        #[derive(Debug)]
        struct Told(&'static str, Option<Box<Told>>);
        impl std::fmt::Display for Told {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.0)
            }
        }
        impl Error for Told {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                self.1.as_deref().map(|cause| cause as _)
            }
        }
        let because = |text, cause| Told(text, Some(Box::new(Told(cause, None))));
        let twice = because("cannot read a: gone; mend it", "gone");
        assert_eq!(causes(&twice), "cannot read a: gone; mend it");
        assert_eq!(
            causes(&because("cannot read a", "gone")),
            "cannot read a: gone"
        );
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(counted(1, "rule", "rules"), "1 rule");
        assert_eq!(counted(0, "rule", "rules"), "0 rules");
    }

    #[test]
    fn json_keeps_its_value_and_holds_nothing_hostile() {
        for c in HOSTILE {
            let json = escape_json(&format!("{{\n  \"a\": \"x{c}y\"\n}}"));
            assert!(json.chars().all(|c| c == '\n' || !is_hostile(c)), "{c:?}");
            let escaped = format!("\"x\\u{:04x}y\"", u32::from(c));
            assert!(json.contains(&escaped), "{c:?} {json}");
        }
        assert_eq!(escape_json("\"日本\""), "\"日本\"");
    }
}
