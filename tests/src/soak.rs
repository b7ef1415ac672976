//! Traffic that goes on for long while policy, agent and controller come and go, and what must hold all the
//! time: no wrong verdict, no growing agent, every record accounted for.
//!
//! Two halves. In the first the agent is killed and stopped again and again; in the second it lives, so that
//! its memory and its counters can be followed.

mod memory;
mod talkers;

use std::{
    fmt::{Display, Formatter},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Agent, Controller, Sandbox,
    policy::{policy, workloads},
    poll::{poll, until},
    program,
};
use memory::Memory;
use talkers::{Talkers, Verdicts};

/// Between two changes.
const PAUSE: Duration = Duration::from_millis(700);

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Policies that came into force.
    pub changes: u32,
    /// Ends of the agent: kills and orderly ones.
    pub restarts: u32,
    /// Times that the controller was away.
    pub absences: u32,
    /// What the calls came to.
    pub verdicts: Verdicts,
    /// Resident memory of the agent in the second half.
    pub memory: Memory,
    /// Flows that were opened in the second half.
    pub opened: u64,
    /// Flows that ended.
    pub closed: u64,
    /// Flows that are still open.
    pub live: u64,
    /// Records that were lost, as counted.
    pub lost: u64,
}

impl Report {
    /// Flows that were opened and neither ended nor are open, and that no loss explains. A reply that was under
    /// way during a change opens its flow a second time.
    #[must_use]
    pub const fn unaccounted(&self) -> u64 {
        let explained = self.lost + self.verdicts.lost_answers;
        self.opened
            .abs_diff(self.closed + self.live)
            .saturating_sub(explained)
    }
}

impl Display for Report {
    fn fmt(&self, to: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { verdicts, .. } = self;
        writeln!(
            to,
            "policy changes: {}; agent restarts: {}; controller away: {} times",
            self.changes, self.restarts, self.absences
        )?;
        writeln!(
            to,
            "calls: {}; wrong verdicts: {}; streams cut: {}; datagrams without an answer: {}",
            verdicts.calls, verdicts.wrong, verdicts.cut, verdicts.lost_answers
        )?;
        writeln!(to, "agent: {}", self.memory)?;
        write!(
            to,
            "flows of the second half: {} opened, {} closed, {} live, {} records lost, {} unaccounted for",
            self.opened,
            self.closed,
            self.live,
            self.lost,
            self.unaccounted()
        )
    }
}

/// Runs for so long.
#[must_use]
pub fn run(sandbox: &Sandbox, time: Duration) -> Report {
    let mut play = Play::new(sandbox);
    let talkers = Talkers::start(sandbox);
    let half = Instant::now() + time / 2;
    while Instant::now() < half {
        play.disturb();
    }
    let mut verdicts = talkers.end();

    play.begin_anew();
    let talkers = Talkers::start(sandbox);
    let mut memory = Memory::default();
    let end = Instant::now() + time / 2;
    while Instant::now() < end {
        play.change();
        play.leave_alone(5);
        memory.note(play.agent.daemon().pid());
        thread::sleep(PAUSE);
    }
    play.controller_back();
    verdicts += talkers.end();
    play.report(verdicts, memory)
}

struct Play {
    controller: Controller,
    controller_away: bool,
    agent: Agent,
    changes: u32,
    restarts: u32,
    absences: u32,
}

impl Play {
    fn new(sandbox: &Sandbox) -> Self {
        let controller = Controller::start(sandbox, &text(0));
        let mut options = controller.options();
        options.sections += "\n[flows]\ncapacity = 4096\n";
        let agent = Agent::start_with(sandbox, &options, "");
        until("the controller's policy is in force", || {
            agent.status().controller_generation == 1
        });
        Self {
            controller,
            controller_away: false,
            agent,
            changes: 0,
            restarts: 0,
            absences: 0,
        }
    }

    /// One of everything that may happen, in turn.
    fn disturb(&mut self) {
        self.change();
        match self.changes % 3 {
            0 => {
                self.agent.kill();
                // While nobody is there, everything goes on.
                thread::sleep(PAUSE);
                self.agent.restart();
                self.restarts += 1;
            }
            1 => {
                let _status = self.agent.terminate();
                self.agent.restart();
                self.restarts += 1;
            }
            _ => self.leave_alone(1),
        }
        thread::sleep(PAUSE);
    }

    /// From here on one agent sees everything: no flow is older than its kernel maps.
    fn begin_anew(&mut self) {
        self.agent.kill();
        let detached = Command::new(program::product("ringfence"))
            .arg("detach")
            .arg("--config")
            .arg(self.agent.config())
            .output()
            .unwrap();
        assert!(detached.status.success(), "{detached:?}");
        self.agent.restart();
        self.restarts += 1;
    }

    /// A policy that differs where it does not concern those who talk.
    fn change(&mut self) {
        self.changes += 1;
        if !self.controller_away {
            self.controller.set_policy(&text(self.changes));
        }
    }

    /// Every so many changes the controller goes, and comes back with the next.
    fn leave_alone(&mut self, every: u32) {
        if self.controller_away {
            self.controller_back();
        } else if self.changes.is_multiple_of(every) {
            let _in_order = self.controller.stop();
            self.controller_away = true;
            self.absences += 1;
        }
    }

    fn controller_back(&mut self) {
        if self.controller_away {
            self.controller.restart();
            self.controller_away = false;
        }
    }

    fn report(mut self, verdicts: Verdicts, memory: Memory) -> Report {
        // What is in the ring buffer is read, and the sockets of the last calls end.
        let _fence = self.agent.log();
        let _quiet = poll(|| (self.agent.status().live_flows == 0).then_some(()));
        let metrics = self.agent.metrics();
        let flows = |event| metrics.sum("ringfence_flows_total", &[("event", event)]);
        let lost = metrics.sum("ringfence_flow_records_lost_total", &[])
            + metrics.sum("ringfence_kernel_events_total", &[("kind", "lost")]);
        self.controller_back();
        Report {
            changes: self.changes,
            restarts: self.restarts,
            absences: self.absences,
            verdicts,
            memory,
            opened: flows("open"),
            // The fence is a call that nobody takes: it ends without having been opened.
            closed: flows("close") - 1,
            live: self.agent.status().live_flows.into(),
            lost,
        }
    }
}

fn text(number: u32) -> String {
    let ports = "ports = [\"9000/tcp\", \"9000/udp\", \"9100/tcp\", \"icmp/8\"]";
    let from = format!("from = [{{ workload = \"web\" }}]\n{ports}");
    let other = format!("ports = [\"{}/tcp\"]", 2000 + number % 1000);
    workloads(&["web", "api", "db", "other"])
        + &policy("web", "default-deny = [\"ingress\"]", &[("egress", ports)])
        + &policy("api", "default-deny = [\"egress\"]", &[])
        + &policy("db", "default-deny = [\"egress\"]", &[("ingress", &from)])
        + &policy("other", "", &[("egress", &other)])
}
