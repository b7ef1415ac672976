//! What found no room within the bounds of what is kept, counted and in words.

use std::path::Path;

use super::Engine;
use crate::{
    datapath::local_addresses,
    identity::{DEEPEST, Forgotten, MOST_CGROUPS, MOST_DELEGATED},
    metrics::LeftOut,
};

/// Network namespaces of which local addresses are not listed because there are too many.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Addresses {
    /// Now.
    left_out: usize,
    /// Whose.
    owner: Option<u32>,
    /// Since the start.
    total: u64,
}

impl Engine {
    /// Reads the local addresses of every network namespace anew.
    pub fn refresh_addresses(&mut self) {
        let result = local_addresses::snapshot()
            .map_err(|error| error.to_string())
            .and_then(|snapshot| {
                let more = snapshot.left_out.saturating_sub(self.addresses.left_out);
                self.addresses = Addresses {
                    left_out: snapshot.left_out,
                    owner: snapshot.owner,
                    total: self.addresses.total + u64::try_from(more).unwrap_or(u64::MAX),
                };
                self.datapath
                    .identities
                    .set_local_addresses(&snapshot.addresses, snapshot.unread == 0)
                    .map_err(|error| error.to_string())
            });
        if let Err(error) = result {
            tracing::error!(error, "local addresses");
        }
    }

    /// How often something was left out.
    #[must_use]
    pub fn left_out(&self) -> LeftOut {
        LeftOut {
            executables: self.resolver.forgotten().number,
            cgroups: self.resolver.left_out().0,
            addresses: self.addresses.total,
        }
    }

    /// The same in words, where it matters, and why identities are not as they should be.
    #[must_use]
    pub fn bounds(&self) -> Vec<String> {
        let forgotten = forgotten(self.resolver.forgotten());
        let (_, crowded) = self.resolver.left_out();
        let cgroups = crowded.map(too_many_cgroups);
        let addresses = (self.addresses.left_out > 0).then(|| {
            let whose = self.addresses.owner.map_or_else(
                || "this host".to_owned(),
                |user| format!("network namespaces of user {user}"),
            );
            format!(
                "there are too many local addresses in {whose}: in {} network namespaces some are not listed, and count as \
                 `world` there; find out who sets them",
                self.addresses.left_out
            )
        });
        let unwritten = self.unwritten.as_ref().map(|error| {
            format!("identities are as they were before the last change of cgroups or executables: {error}")
        });
        let unkept = self.unkept.clone();
        let all = [forgotten, cgroups, addresses, unwritten, unkept];
        all.into_iter().flatten().collect()
    }
}

fn too_many_cgroups(place: &Path) -> String {
    let most = if place == Path::new("/") {
        MOST_CGROUPS
    } else {
        MOST_DELEGATED
    };
    format!(
        "there are too many cgroups below {} ({most} at most are followed), or some more than {DEEPEST} levels below the \
         guarded root: those beyond are not followed, and what runs in them is whom their names stand for, or pending and refused; find out who makes them",
        place.display()
    )
}

fn forgotten(forgotten: Forgotten) -> Option<String> {
    let owner = forgotten.owner?;
    Some(format!(
        "too many executables are run to remember all: {} were forgotten since the start, and are judged again when they are \
         used; most were files of user {owner}",
        forgotten.number
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_that_was_reached_is_named() {
        for (place, expected) in [
            ("/", "cgroups below / (98304 at most"),
            ("/u", "cgroups below /u (8192 at most"),
        ] {
            let text = too_many_cgroups(Path::new(place));
            assert!(text.contains(expected), "{text}");
        }
    }
}
