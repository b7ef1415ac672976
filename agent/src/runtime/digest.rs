//! Which digest an image has, among those by which a runtime knows it.

use super::is_id;

/// `sha256:HEX` of `REPOSITORY@sha256:HEX`.
pub(super) fn of_reference(reference: &str) -> Option<&str> {
    let (_, digest) = reference.split_once('@')?;
    is_digest(digest).then_some(digest)
}

/// The digest that stands for an image which was called `name`: the one it was called by; else the first of its
/// repository; else the only one. Every candidate is one of `known`, which the runtime keeps with the image: a name
/// alone proves nothing.
pub(super) fn choose<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let digests = || known.iter().filter_map(|it| of_reference(it));
    if let Some(called) = of_reference(name) {
        return digests().find(|digest| *digest == called);
    }
    let of_repository = known
        .iter()
        .filter(|it| repository(it) == repository(name))
        .find_map(|it| of_reference(it));
    let first = digests().next();
    of_repository.or_else(|| first.filter(|first| digests().all(|other| other == *first)))
}

/// Whether it is a SHA-256 digest in the notation of OCI.
pub(super) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_id)
}

/// The name without digest and tag; a colon before a slash belongs to a port.
fn repository(reference: &str) -> &str {
    let name = reference
        .split_once('@')
        .map_or(reference, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        Some(_) | None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(names: &[&str]) -> Vec<String> {
        let mut hex = 'a'..;
        let mut digest = || hex.next().map(|digit| digit.to_string().repeat(64));
        names
            .iter()
            .map(|name| format!("{name}@sha256:{}", digest().unwrap_or_default()))
            .collect()
    }

    fn chosen(name: &str, names: &[&str]) -> Option<char> {
        let known = known(names);
        choose(name, &known).and_then(|digest| digest.chars().last())
    }

    #[test]
    fn the_digest_an_image_was_called_by_counts_if_the_runtime_knows_it() {
        let b = format!("x@sha256:{}", "b".repeat(64));
        assert_eq!(chosen(&b, &["x", "x"]), Some('b'));
        let forged = format!("x@sha256:{}", "e".repeat(64));
        assert_eq!(chosen(&forged, &["x"]), None);
        assert_eq!(chosen("x@sha256:short", &["x"]), Some('a'));
    }

    #[test]
    fn the_digest_of_the_images_own_repository_is_taken_before_others() {
        let names = ["mirror:5000/x", "host:5000/x", "host:5000/x"];
        assert_eq!(chosen("host:5000/x:1.2", &names), Some('b'));
        assert_eq!(chosen("host:5000/x", &names), Some('b'));
        assert_eq!(chosen("elsewhere", &names), None);
    }

    #[test]
    fn an_image_called_by_its_id_has_the_digest_that_is_the_only_one() {
        assert_eq!(chosen("60e41698852b", &["x"]), Some('a'));
        assert_eq!(chosen("60e41698852b", &[]), None);
        assert_eq!(chosen("", &["x", "y"]), None);
    }
}
