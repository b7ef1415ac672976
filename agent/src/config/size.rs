//! Sizes in bytes: `4194304` or `"4 MiB"`.

use serde::Deserialize;

/// A size as it stands in the file.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number of bytes or a text like \"4 MiB\""
)]
pub(super) enum Size {
    /// Bytes.
    Bytes(u64),
    /// A number and a unit.
    Text(String),
}

impl Size {
    /// The size in bytes, or `None` if the text is not a size.
    pub(super) fn bytes(&self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(*bytes),
            Self::Text(text) => parse(text),
        }
    }
}

fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn units_are_powers_of_1024() {
        assert_eq!(parse("4 MiB"), Some(4 << 20));
        assert_eq!(parse("64KiB"), Some(64 << 10));
        assert_eq!(parse(" 1 GiB "), Some(1 << 30));
        assert_eq!(parse("512"), Some(512));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "MiB",
            "4 MB",
            "-1",
            "4.5 MiB",
            "99999999999999999999",
            "18446744073709551615 GiB",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
