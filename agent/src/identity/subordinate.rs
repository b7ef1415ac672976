//! Whose the ranges of subordinate user ids are (`/etc/subuid`, subuid(5)).
//!
//! A user can be each of his ids: in a user namespace, or outside by a set-user-ID file that he made inside. So what is
//! bounded for each user is bounded for all of his ids together. Ranges that only another source of `nsswitch.conf`
//! knows are not found here.

use std::{cell::OnceCell, fs};

use super::names;

const PATH: &str = "/etc/subuid";

/// The ranges of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subordinates(Vec<Range>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    /// Name or number.
    holder: String,
    /// The number, once somebody asked.
    number: OnceCell<Option<u32>>,
    first: u32,
    count: u32,
}

impl Subordinates {
    /// As they are now; none where there is no such file.
    #[must_use]
    pub fn of_host() -> Self {
        // Bytes that are no text make no user's name.
        let text = fs::read(PATH).unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&text))
    }

    /// From the text of the file; a line that is not as it should be counts for nobody.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(range).collect())
    }

    /// Who can be `uid`: the user whose range it is in, else himself. A range of root's is somebody of its own, by its
    /// first id: root gives it to others and shares nothing with them.
    #[must_use]
    pub fn holder(&self, uid: u32) -> u32 {
        self.holder_by(uid, names::user)
    }

    fn holder_by(&self, uid: u32, user: impl Fn(&str) -> Option<u32>) -> u32 {
        let within = |range: &&Range| {
            uid.checked_sub(range.first)
                .is_some_and(|at| at < range.count)
        };
        let Some(range) = self.0.iter().find(within).filter(|_| uid != 0) else {
            return uid;
        };
        let ask = || range.holder.parse().ok().or_else(|| user(&range.holder));
        let holder = *range.number.get_or_init(ask);
        let mut known = [holder, Some(range.first)].into_iter().flatten();
        known.find(|holder| *holder != 0).unwrap_or(uid)
    }
}

fn range(line: &str) -> Option<Range> {
    let mut fields = line.trim().split(':');
    let holder = fields.next().filter(|holder| !holder.is_empty())?;
    let [first, count] = [fields.next()?, fields.next()?].map(|field| field.parse().ok());
    Some(Range {
        holder: holder.to_owned(),
        number: OnceCell::new(),
        first: first?,
        count: count?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_a_range_is_its_holder_and_never_root() {
        let text = "alice:100000:65536\n1001:165536:10\nroot:1000000:65536\nroot:0:5\nroot:1000:1\n\n\
                    gone:300000:9\nbroken:1\n:400000:5\nx:y:z\nalice:4294967295:4294967295\n";
        let subordinates = Subordinates::parse(text);
        let holder = |uid| subordinates.holder_by(uid, |name| (name == "alice").then_some(1000));
        for (uid, expected) in [
            (100_000, 1000),
            (165_535, 1000),
            (165_536, 1001),
            (165_545, 1001),
            (165_546, 165_546),
            (99_999, 99_999),
            (0, 0),
            (1, 1),
            (1000, 1000),
            (1_000_007, 1_000_000),
            (300_008, 300_000),
            (400_000, 400_000),
            (u32::MAX, 1000),
        ] {
            assert_eq!(holder(uid), expected, "{uid}");
        }
        assert_eq!(Subordinates::parse("").holder(7), 7);
    }
}
