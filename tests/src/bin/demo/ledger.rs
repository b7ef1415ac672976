//! What the flow log must hold, written down while it happens.

use ringfence_tests::{Actor, Agent};

use crate::{acts::comparable, cast::Server};

/// Lines that must be in the log, and no others.
#[derive(Default)]
pub struct Ledger {
    lines: Vec<String>,
}

impl Ledger {
    /// A call went through: open and close on both sides.
    pub fn passed(&mut self, who: &str, caller: &Actor, pid: u32, server: &Server, draft: &str) {
        let Server {
            name,
            protocol,
            address,
            running,
            actor,
        } = server;
        let flow = format!("{protocol} {who} -> {name} {address} allow rule-allow");
        for (direction, owner, draft, by) in [
            ("egress", who, draft, caller.by(pid)),
            ("ingress", name, "", actor.by(running.pid())),
        ] {
            let flow = format!("{direction} {flow} {owner}/{direction}[0]{draft}");
            self.lines.push(format!("open {flow} {by}"));
            self.lines.push(format!("close {flow} 3/3B {by}"));
        }
    }

    /// A call was refused: one record of the caller.
    pub fn refused(&mut self, who: &str, caller: &Actor, pid: u32, server: &Server, peer: &str) {
        let Server {
            name,
            protocol,
            address,
            ..
        } = server;
        self.lines.push(format!(
            "deny egress {protocol} {who} -> {name} {address} deny default-deny{peer} {}",
            caller.by(pid)
        ));
    }

    /// A live flow was revoked on both sides (direction, owner, process).
    pub fn revoked(&mut self, ends: &str, address: &str, sides: &[(&str, &str, String)]) {
        for (direction, owner, by) in sides {
            let flow = format!("{direction} tcp {ends} {address}");
            let denied = format!("{flow} deny default-deny revoked");
            self.lines.push(format!(
                "open {flow} allow rule-allow {owner}/{direction}[0] {by}"
            ));
            self.lines.push(format!("deny {denied} {by}"));
            self.lines.push(format!("close {denied} * {by}"));
        }
    }

    /// Compares with the log and begins anew.
    pub fn settle(&mut self, agent: &Agent) -> Result<String, String> {
        let expected = std::mem::take(&mut self.lines);
        let records = agent.settled(expected.len(), |_| true);
        let mut missing = expected.clone();
        let mut more = Vec::new();
        for line in records.iter().map(comparable) {
            match missing.iter().position(|it| *it == line) {
                Some(found) => drop(missing.swap_remove(found)),
                None => more.push(line),
            }
        }
        if missing.is_empty() && more.is_empty() {
            return Ok(format!(
                "{} records, each with its processes, identities, rule and reason",
                expected.len()
            ));
        }
        Err(format!(
            "\n      missing:\n        {}\n      unexpected:\n        {}",
            missing.join("\n        "),
            more.join("\n        ")
        ))
    }
}
