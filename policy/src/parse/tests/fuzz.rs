//! Damaged documents: an answer, never a panic.

use super::{document, parse_one};
use crate::{
    oracle::SplitMix64,
    parse::{lint, parse_whole},
};

#[test]
fn damaged_documents_are_refused_with_a_line_that_exists() {
    let mut rng = SplitMix64::new(1);
    let (mut valid, mut refused) = (0, 0);
    for _ in 0..4_000 {
        let mut bytes = super::valid::EVERYTHING.as_bytes().to_vec();
        for _ in 0..=rng.below(3) {
            damage(&mut bytes, &mut rng);
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let parsed = parse_one(&text);
        let whole = parse_whole(&[document("a.toml", &text)]);
        assert_eq!(parsed, whole, "{text}");
        match parsed {
            Ok(set) => {
                valid += 1;
                let _ = lint(&set, time::OffsetDateTime::UNIX_EPOCH);
            }
            Err(errors) => {
                refused += 1;
                let lines = text.matches('\n').count() + 1;
                assert!(!errors.is_empty());
                for error in errors {
                    assert!((1..=lines).contains(&error.line), "{error}\n{text}");
                    assert!(
                        !error.message.contains('\n') && !error.remedy.is_empty(),
                        "{error}"
                    );
                }
            }
        }
    }
    assert!(
        valid > 100 && refused > 1_000,
        "{valid} valid, {refused} refused"
    );
}

fn damage(bytes: &mut Vec<u8>, rng: &mut SplitMix64) {
    let at = rng.below(bytes.len());
    match rng.below(4) {
        0 => bytes[at] = rng.pick(b"\"[]{}=.,/-0 a\n#"),
        1 => {
            let _ = bytes.remove(at);
        }
        2 => bytes.insert(at, rng.pick(b"\"[]{}=.,/-0 a\n#")),
        _ => {
            // A piece from elsewhere.
            let from = rng.below(bytes.len() - 20);
            let piece = bytes[from..from + rng.below(20)].to_vec();
            let end = (at + piece.len()).min(bytes.len());
            drop(bytes.splice(at..end, piece));
        }
    }
}
