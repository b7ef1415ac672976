//! Sizes and names that both ends of policy synchronisation hold each other to.

/// Largest update from the controller, in bytes as encoded.
pub const MAX_UPDATE_BYTES: usize = 64 << 20;
/// Largest message from an agent, in bytes as encoded.
pub const MAX_REQUEST_BYTES: usize = 64 << 10;
/// Largest piece of a document that is applied, in bytes.
pub const MAX_PIECE_BYTES: usize = 32 << 10;
/// Longest time that a change of policy waits to be confirmed, in seconds.
pub const MAX_CONFIRM_SECONDS: u32 = 24 * 60 * 60;
/// Most documents of one policy.
pub const MAX_DOCUMENTS: usize = 1 << 16;
/// Most identities of one deployment that are synchronised.
pub const MAX_IDENTITIES: usize = 1 << 20;
/// Longest name of a document, workload or host, in bytes.
pub const MAX_NAME_BYTES: usize = 255;
/// Longest reason of a refusal that an agent sends and the controller keeps, in bytes.
pub const MAX_ERROR_BYTES: usize = 4 << 10;
/// Most endpoints of one agent that the controller keeps.
pub const MAX_ENDPOINTS: usize = 4096;
/// Most endpoints in one message, added and removed together.
pub const MAX_REPORT_ENDPOINTS: usize = 500;

/// Whether a document may have this name: one component of a path, printable.
#[must_use]
pub fn is_document_name(name: &str) -> bool {
    is_name(name) && !name.contains(['/', '\\']) && name != "." && name != ".."
}

/// Whether a workload or a host may have this name: not empty, not too long, printable.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control)
}

/// The text up to [`MAX_ERROR_BYTES`], cut between two characters.
#[must_use]
pub fn clip_error(text: &str) -> &str {
    let mut end = text.len().min(MAX_ERROR_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{MAX_ERROR_BYTES, MAX_NAME_BYTES, clip_error, is_document_name, is_name};

    #[test]
    fn a_document_name_is_one_component() {
        for name in ["web.toml", "ü.toml", "..web", "a b"] {
            assert!(is_document_name(name), "{name}");
        }
        for name in ["", ".", "..", "../x", "a/b", "a\\b", "a\nb", "a\0"] {
            assert!(!is_document_name(name), "{name:?}");
        }
        assert!(is_name(&"x".repeat(MAX_NAME_BYTES)));
        assert!(!is_name(&"x".repeat(MAX_NAME_BYTES + 1)));
    }

    #[test]
    fn an_error_is_clipped_between_characters() {
        let long = "ü".repeat(MAX_ERROR_BYTES);
        assert_eq!(clip_error(&long).len(), MAX_ERROR_BYTES);
        let odd = format!("x{long}");
        assert_eq!(clip_error(&odd).len(), MAX_ERROR_BYTES - 1);
        assert_eq!(clip_error("short"), "short");
    }
}
