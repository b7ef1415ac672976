//! What happens, in order.

use ringfence_tests::{Agent, Controller, Sandbox, flows::line};

use crate::{
    acts::{about, get_to_know, in_force, passes, refused},
    cast::{Cast, Server, TRIAL},
    ledger::Ledger,
    report::Report,
};

const AT_API: &str = "127.0.0.1:8080";
const AT_DB: &str = "127.0.0.1:5432";

/// Tells it all; what fails is in the report.
pub fn tell(sandbox: &Sandbox, report: &mut Report) {
    let cast = Cast::new(sandbox);
    report
        .say("web -> api -> db, three programs in cgroups of their own; `intruder` shares api's.");
    let Some(mut show) = open(sandbox, &cast, report) else {
        return;
    };
    show.allow_and_block(report);
    show.draft(report);
    show.revoke(report);
    show.agree(report);
    show.without_agent(report);
}

/// The stage: what runs, and what the flow log must hold.
struct Show<'a> {
    cast: &'a Cast,
    controller: Controller,
    agent: Agent,
    servers: Vec<Server>,
    ledger: Ledger,
}

fn open<'a>(sandbox: &Sandbox, cast: &'a Cast, report: &mut Report) -> Option<Show<'a>> {
    report.part("Without the agent");
    let servers = report.step("the servers start", || cast.serve())?;
    for (name, actor) in [("web", &cast.web), ("intruder", &cast.intruder)] {
        let _held = report.check(&format!("{name} reaches db"), || {
            let seen = actor.tcp(AT_DB, &["--expect", "1"]);
            if seen.ok() {
                Ok("connected".to_owned())
            } else {
                Err(format!("{seen:?}"))
            }
        });
    }
    drop(servers);

    report.part("A controller, and an agent that gets its policy from it");
    let controller = report.step("the controller starts", || {
        Controller::start(sandbox, &cast.policy(5432, ""))
    })?;
    let agent = report.step("the agent starts", || {
        Agent::start_with(sandbox, &controller.options(), "")
    })?;
    let _held = report.check("the policy is in force", || {
        in_force(&agent, 1);
        let status = agent.status();
        let attached = status.hooks.iter().filter(|hook| hook.attached).count();
        let seen = format!(
            "{} workloads, {} policies from the {}, {attached} programs attached",
            status.workloads, status.policies, status.policy_source
        );
        if attached == status.hooks.len() {
            Ok(seen)
        } else {
            Err(seen)
        }
    });
    let servers = report.step("the servers start", || cast.serve())?;
    report.step("the agent gets to know the intruder", || {
        get_to_know(&agent, &cast.intruder);
    })?;
    Some(Show {
        cast,
        controller,
        agent,
        servers,
        ledger: Ledger::default(),
    })
}

impl Show<'_> {
    fn allow_and_block(&mut self, report: &mut Report) {
        report.part("What the policy allows works, the rest is EPERM at once");
        let Self {
            cast,
            servers,
            ledger,
            ..
        } = self;
        for server in servers.iter() {
            let (caller, who) = if server.name == "api" {
                (&cast.web, "web")
            } else {
                (&cast.api, "api")
            };
            let _held = report.check(&about(who, server), || {
                passes(caller, who, server, "", ledger)
            });
        }
        for server in servers.iter().filter(|server| server.name == "db") {
            let claim = format!("{} is refused", about("web", server));
            let _held = report.check(&claim, || refused(&cast.web, "web", server, "", ledger));
        }
        for server in servers.iter().filter(|server| server.name == "db") {
            let claim = format!("{} is refused", about("intruder", server));
            let _held = report.check(&claim, || {
                refused(&cast.intruder, "host", server, " peer", ledger)
            });
        }
    }

    fn draft(&mut self, report: &mut Report) {
        report.part("A draft policy is tried on real traffic");
        let Self {
            cast,
            controller,
            agent,
            servers,
            ledger,
        } = self;
        let _held = report.check("the controller pushes a draft that cuts web off", || {
            controller.set_policy(&cast.policy(5432, TRIAL));
            in_force(agent, 2);
            Ok("accepted".to_owned())
        });
        let Some(server) = servers.first() else {
            return;
        };
        let verdict = " draft deny rule-deny trial/deny-egress[0]";
        let _held = report.check(&format!("{} still works", about("web", server)), || {
            passes(&cast.web, "web", server, verdict, ledger)
        });
        let _held = report.check("its record shows the draft verdict", || {
            let log = agent.log();
            let shown = log.iter().map(line).find(|line| line.contains(verdict));
            shown.ok_or_else(|| "no such record".to_owned())
        });
    }

    fn revoke(&mut self, report: &mut Report) {
        report.part("A policy that is pushed reaches live connections");
        let Self {
            cast,
            controller,
            agent,
            servers,
            ledger,
        } = self;
        let Some(stream) = report.step("api holds a transfer to db", || cast.api.hold(AT_DB))
        else {
            return;
        };
        let at_db = servers.iter().find(|server| server.address == AT_DB);
        let by = [
            ("egress", "api", cast.api.by(stream.pid())),
            (
                "ingress",
                "db",
                cast.db.by(at_db.map_or(0, |server| server.running.pid())),
            ),
        ];
        ledger.revoked("api -> db", AT_DB, &by);
        let _held = report.check("api -> db is taken away: the live transfer is cut", || {
            controller.set_policy(&cast.policy(1, TRIAL));
            let cut = stream.last();
            let seen = format!(
                "{} after {} bytes",
                cut.error.as_deref().unwrap_or("nothing"),
                cut.sent
            );
            in_force(agent, 3);
            if cut.ok() || cut.failed("send", "timeout") {
                Err(seen)
            } else {
                Ok(seen)
            }
        });
    }

    /// Compares the flow log and the metrics with what was done.
    fn agree(&mut self, report: &mut Report) {
        report.part("What was recorded");
        self.servers.clear();
        let (agent, ledger) = (&self.agent, &mut self.ledger);
        let _held = report.check("the flow log holds exactly these flows", || {
            ledger.settle(agent)
        });
        let _held = report.check(
            "metrics and kernel counters agree, nothing was lost",
            || {
                agent.assert_counters();
                let metrics = agent.metrics();
                let denied = metrics.sum("ringfence_decisions_total", &[("verdict", "deny")]);
                let allowed = metrics.sum("ringfence_decisions_total", &[("verdict", "allow")]);
                Ok(format!("{allowed} allowed and {denied} denied decisions"))
            },
        );
    }

    fn without_agent(&mut self, report: &mut Report) {
        report.part("kill -9 of the agent changes nothing");
        let Self {
            cast,
            controller,
            agent,
            servers,
            ledger,
        } = self;
        let ready = report.step("everything is set up anew", || {
            controller.set_policy(&cast.policy(5432, ""));
            in_force(agent, 4);
            let servers = cast.serve();
            // All that was before is read, and belongs to the log that ends now.
            let _log = agent.log();
            agent.kill();
            servers
        });
        let Some(started) = ready else { return };
        *servers = started;
        let find = |address: &str| servers.iter().find(|server| server.address == address);
        let (Some(api), Some(db)) = (find(AT_API), find(AT_DB)) else {
            return;
        };
        let _held = report.check("without the agent web -> api works", || {
            passes(&cast.web, "web", api, "", ledger)
        });
        let _held = report.check("without the agent web -> db is refused", || {
            refused(&cast.web, "web", db, "", ledger)
        });
        let _held = report.check("it starts again and takes over", || {
            agent.restart();
            let status = agent.status();
            Ok(format!(
                "generation {}, policy from the {}",
                status.generation, status.policy_source
            ))
        });
        let _held = report.check("with it web -> db is refused as before", || {
            refused(&cast.web, "web", db, "", ledger)
        });
        servers.clear();
        let _held = report.check("what happened meanwhile is in the flow log", || {
            ledger.settle(agent)
        });
    }
}
