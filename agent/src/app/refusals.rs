//! What is newest and not in force, and why.

use super::publish::Published;
use crate::{metrics::Metrics, sync::Held};

/// Refusals that still hold. Empty: the newest policy of every source is in force.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Why the policy directory is not in force as it stands.
    pub files: Option<String>,
    /// The controller's newest policy.
    pub update: Option<RefusedUpdate>,
    /// Why the controller's newest policy is none: it is not what it says, or goes back.
    pub unverified: Option<String>,
    /// Why the policy in force could not be brought up to date when a time in it came.
    pub renewal: Option<String>,
}

/// A policy of the controller that may become valid when local documents change.
#[derive(Debug)]
pub struct RefusedUpdate {
    /// The policy.
    pub held: Held,
    /// Why it is refused.
    pub error: String,
}

impl Refusals {
    /// All of them, one reason a line; `None` when there are none.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let update = self.update.as_ref().map(|RefusedUpdate { held, error }| {
            format!(
                "controller's generation {} refused: {error}",
                held.generation
            )
        });
        let all: Vec<&str> = [&self.files, &update, &self.unverified, &self.renewal]
            .into_iter()
            .filter_map(Option::as_deref)
            .collect();
        (!all.is_empty()).then(|| all.join("\n"))
    }

    /// Shows them in status, metrics and log, where they differ from what is shown.
    pub fn show(&self, published: &Published, metrics: &Metrics) {
        let text = self.text();
        if published.status().borrow().policy_error == text {
            return;
        }
        metrics.newest_policy_refused(text.is_some());
        if let Some(text) = &text {
            metrics.policy_refused();
            for line in text.lines() {
                tracing::error!(
                    error = line,
                    "policy refused; the one before stays in force"
                );
            }
        } else {
            tracing::info!("the newest policy is in force");
        }
        published.update_status(|status| status.policy_error = text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_that_holds_is_told_on_lines_of_its_own() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.text(), None);
        refusals.files = Some("a.toml:1: one\na.toml:2: two".to_owned());
        refusals.update = Some(RefusedUpdate {
            held: Held {
                generation: 7,
                documents: Vec::new(),
                identities: std::collections::BTreeMap::new(),
            },
            error: "web.toml:3: three".to_owned(),
        });
        let text =
            "a.toml:1: one\na.toml:2: two\ncontroller's generation 7 refused: web.toml:3: three";
        assert_eq!(refusals.text().as_deref(), Some(text));
        refusals.files = None;
        refusals.update = None;
        assert_eq!(refusals.text(), None);
    }
}
