//! Who talks, and what it must come to.

use std::ops::AddAssign;

use crate::{Running, Sandbox};

/// Between two rounds of calls, milliseconds.
const PAUSE: &str = "--pause-ms=10";
/// Calls that pass and calls that don't.
const WEB: [(&str, bool); 5] = [
    ("tcp/127.0.0.1:9000", true),
    ("udp/127.0.0.1:9000", true),
    ("icmp/127.0.0.1:0", true),
    ("tcp/127.0.0.1:9001", false),
    ("udp/127.0.0.1:9001", false),
];
const API: [(&str, bool); 3] = [
    ("tcp/127.0.0.1:9000", false),
    ("udp/127.0.0.1:9000", false),
    ("icmp/127.0.0.1:0", false),
];
/// Connections that are used all the time.
const STREAMS: usize = 3;

/// What the calls came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verdicts {
    /// All of them.
    pub calls: u64,
    /// Those that passed and may not, or the other way round.
    pub wrong: u64,
    /// Connections that ended before their time.
    pub cut: u64,
    /// Allowed datagrams that were not answered; each time only the first of several in a row counts.
    pub lost_answers: u64,
}

impl AddAssign for Verdicts {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.wrong += other.wrong;
        self.cut += other.cut;
        self.lost_answers += other.lost_answers;
    }
}

/// Processes that talk.
pub struct Talkers {
    callers: Vec<(Running, Vec<(&'static str, bool)>)>,
    streams: Vec<Running>,
    _servers: [Running; 2],
}

impl Talkers {
    /// Starts them.
    #[must_use]
    pub fn start(sandbox: &Sandbox) -> Self {
        sandbox
            .namespace()
            .sysctl("net/ipv4/ping_group_range", "0 2147483647");
        let [web, api, db] = ["web", "api", "db"].map(|name| sandbox.actor(name));
        let mut sink = db.start(&["sink", "127.0.0.1", "9000", "2"]);
        let _ready = sink.line().expect_ok("a server");
        let echo = db.serve(&["tcp", "127.0.0.1:9100", "--echo"]);
        let caller = |actor: &crate::Actor, calls: &[(&'static str, bool)]| {
            let targets = calls.iter().map(|(target, _)| *target);
            let words: Vec<&str> = ["sample", PAUSE].into_iter().chain(targets).collect();
            (actor.start(&words), calls.to_vec())
        };
        Self {
            callers: vec![caller(&web, &WEB), caller(&api, &API)],
            streams: (0..STREAMS).map(|_| web.hold("127.0.0.1:9100")).collect(),
            _servers: [sink, echo],
        }
    }

    /// Ends them.
    #[must_use]
    pub fn end(self) -> Verdicts {
        let mut verdicts = Verdicts::default();
        for (mut running, expected) in self.callers {
            running.go_on();
            loop {
                let line = running.line();
                if line.step == "done" {
                    verdicts.calls += line.sent;
                    break;
                }
                let passes = expected.iter().find(|(target, _)| *target == line.step);
                let passes = passes.is_some_and(|(_, passes)| *passes);
                let datagram = !line.step.starts_with("tcp");
                if passes && datagram && line.error.as_deref() == Some("timeout") {
                    verdicts.lost_answers += 1;
                } else if line.ok() != passes {
                    verdicts.wrong += 1;
                }
            }
        }
        for mut stream in self.streams {
            verdicts.cut += u64::from(!stream.is_alive());
        }
        verdicts
    }
}
