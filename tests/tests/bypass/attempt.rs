//! What an attempt is, and when it has failed.

/// An attempt: steps of a puppet with `; ` between them, the last of which shows that it has succeeded. A
/// step that begins with `b ` or `c ` is done by an accomplice or a victim.
pub struct Attempt {
    pub what: String,
    pub script: String,
    /// Where it ends with Ringfence: step and error; several with `|` between them.
    ends: String,
    /// How the one deny record begins.
    record: String,
    /// Attacker, `b`, `c`.
    pub parts: [&'static str; 3],
    /// Whether `free` can do the same while the agent runs.
    pub repeatable: bool,
}

/// One of `rogue`, with `vault` and `free` as the others.
pub fn attempt(what: &str, script: &str, ends: &str, record: &str) -> Attempt {
    Attempt {
        what: what.to_owned(),
        script: script.to_owned(),
        ends: ends.to_owned(),
        record: record.to_owned(),
        parts: ["rogue", "vault", "free"],
        repeatable: true,
    }
}

impl Attempt {
    /// The same made by somebody else.
    pub fn by(mut self, by: &'static str) -> Self {
        self.parts[0] = by;
        self
    }

    /// The same with somebody else as `b`.
    pub fn with(mut self, with: &'static str) -> Self {
        self.parts[1] = with;
        self
    }

    /// The same with somebody else as `c`.
    pub fn and(mut self, and: &'static str) -> Self {
        self.parts[2] = and;
        self
    }

    /// Panics unless it ended as it should, with one deny record among the new ones.
    #[track_caller]
    pub fn assert_failed(&self, ended: &str, new: &[String]) {
        let what = &self.what;
        assert!(
            self.ends.split('|').any(|end| end == ended),
            "{what}: ended with {ended}\n  {}",
            new.join("\n  ")
        );
        let denied: Vec<_> = new.iter().filter(|it| it.starts_with("deny ")).collect();
        assert!(
            matches!(&denied[..], [one] if one.starts_with(&self.record)),
            "{what}: not one record like\n  {}\nbut\n  {}",
            self.record,
            new.join("\n  ")
        );
    }

    /// The same that `free` can't repeat while the agent runs: it is not about who makes it.
    pub fn not_for_free(mut self) -> Self {
        self.repeatable = false;
        self
    }
}
