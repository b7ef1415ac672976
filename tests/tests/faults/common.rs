//! Two policies that differ in rules which change together, and who calls all the time while they do.

use std::collections::BTreeMap;

use ringfence_tests::{
    Actor, Running, Sandbox,
    outcome::Outcome,
    policy::{policy, workloads},
};

/// Where the server is.
pub const HOST: &str = "127.0.0.1";
/// Allowed by both policies.
const ALWAYS: u16 = 9000;
/// Denied by both.
const NEVER: u16 = 9001;
/// Allowed by the old policy alone: the caller's policy decides about the first, the server's about the second.
const OLD: [u16; 2] = [9002, 9003];
/// Allowed by the new policy alone, likewise.
const NEW: [u16; 2] = [9004, 9005];
/// All ports.
const PORTS: u16 = 6;

/// One of the two policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Old,
    New,
}

impl Side {
    /// The one that takes its place.
    pub const fn other(self) -> Self {
        match self {
            Self::Old => Self::New,
            Self::New => Self::Old,
        }
    }

    /// Its text.
    pub fn policy(self) -> String {
        let [by_web, by_db] = match self {
            Self::Old => [[OLD[0], OLD[1], NEW[1]], [OLD[0], OLD[1], NEW[0]]],
            Self::New => [[OLD[1], NEW[0], NEW[1]], [OLD[0], NEW[0], NEW[1]]],
        };
        let ports = |own: [u16; 3]| {
            let all = own.into_iter().chain([ALWAYS]);
            let both = all.flat_map(|port| ["tcp", "udp"].map(|it| format!("\"{port}/{it}\"")));
            both.chain(["\"9100/tcp\"".to_owned()])
                .collect::<Vec<_>>()
                .join(", ")
        };
        let to = format!(
            "to = [{{ workload = \"db\" }}]\nports = [{}]",
            ports(by_web)
        );
        let from = format!(
            "from = [{{ workload = \"web\" }}]\nports = [{}]",
            ports(by_db)
        );
        workloads(&["web", "db"])
            + &policy("web", "default-deny = [\"ingress\"]", &[("egress", &to)])
            + &policy("db", "default-deny = [\"egress\"]", &[("ingress", &from)])
    }

    /// Whether a call passes.
    pub fn allows(self, target: &str) -> bool {
        let port: u16 = target.rsplit(':').next().unwrap().parse().unwrap();
        assert!(port == NEVER || port == ALWAYS || OLD.contains(&port) || NEW.contains(&port));
        let own = match self {
            Self::Old => OLD,
            Self::New => NEW,
        };
        port == ALWAYS || own.contains(&port)
    }
}

/// Caller and server of the two policies.
pub struct Pair {
    web: Actor,
    _server: Running,
}

impl Pair {
    /// Starts the server.
    #[track_caller]
    pub fn new(sandbox: &Sandbox) -> Self {
        let mut server = sandbox.actor("db").start(&["sink", HOST, "9000", "6"]);
        let _ready = server.line().expect_ok("a server");
        Self {
            web: sandbox.actor("web"),
            _server: server,
        }
    }

    /// The caller.
    pub fn web(&self) -> &Actor {
        &self.web
    }

    /// Begins to call.
    #[track_caller]
    pub fn sample(&self) -> Samples {
        let mut arguments = vec!["sample".to_owned()];
        arguments.extend(targets());
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut running = self.web.start(&words);
        let first = targets().iter().map(|_| running.line()).collect();
        Samples { running, first }
    }

    /// Calls everything once: the policy that is in force. Panics if that is none of the two.
    #[track_caller]
    pub fn side(&self) -> Side {
        let verdicts = self.verdicts();
        for side in [Side::Old, Side::New] {
            if targets()
                .iter()
                .all(|target| verdicts.get(target) == Some(&side.allows(target)))
            {
                return side;
            }
        }
        panic!("neither the old policy nor the new one: {verdicts:?}");
    }

    /// What passes.
    #[track_caller]
    pub fn verdicts(&self) -> BTreeMap<String, bool> {
        let mut arguments = vec!["sample".to_owned(), "--rounds=1".to_owned()];
        arguments.extend(targets());
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut running = self.web.start(&words);
        let lines = targets().len();
        let verdicts = (0..lines).map(|_| {
            let line = running.line();
            (line.step.clone(), line.ok())
        });
        verdicts.collect()
    }
}

/// Calls that go on.
pub struct Samples {
    running: Running,
    first: Vec<Outcome>,
}

/// How the verdicts may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// All at one moment, to the policy that takes the place of the other.
    AtOnce,
    /// While two sets of programs judge, what either denies is denied.
    ByBoth,
}

impl Samples {
    /// Ends the calls, and panics if one of them went wrong while the policy `after` came into force. Returns
    /// how many there were.
    #[track_caller]
    pub fn assert_right(mut self, after: Side, change: Change) -> u64 {
        self.running.go_on();
        let mut lines = self.first;
        let calls = loop {
            let line = self.running.line();
            if line.step == "done" {
                break line.sent;
            }
            lines.push(line);
        };
        let mut seen = BTreeMap::<String, Vec<bool>>::new();
        let mut changed = Vec::new();
        for line in &lines {
            // A datagram or its answer may be lost; what was called before is answered late where it is denied now.
            let late = !after.allows(&line.step);
            let lost = line.step.starts_with("udp") && line.error.as_deref() == Some("timeout");
            let whole = match line.error.as_deref() {
                None | Some("EPERM" | "ECONNABORTED") => true,
                Some("timeout") => late || lost,
                Some(_) => false,
            };
            assert!(whole, "{line:?}\n{}", show(&lines));
            let before = seen.entry(line.step.clone()).or_default();
            if (lost && !late) || before.last() == Some(&line.ok()) {
                continue;
            }
            if !before.is_empty() {
                changed.push(line.sent);
            }
            before.push(line.ok());
        }
        for (target, verdicts) in &seen {
            let mut whole = vec![after.other().allows(target), after.allows(target)];
            whole.dedup();
            let right = *verdicts == whole;
            assert!(right, "{target}: {verdicts:?}\n{}", show(&lines));
        }
        if let (Change::AtOnce, Some(first), Some(last)) = (change, changed.first(), changed.last())
        {
            // After the first call that was judged by the new policy, none by the old one.
            let round = u64::try_from(targets().len()).unwrap();
            assert!(last - first < round, "mixed:\n{}", show(&lines));
        }
        calls
    }
}

fn show(lines: &[Outcome]) -> String {
    let each = lines
        .iter()
        .map(|line| format!("{} {} {:?}\n", line.sent, line.step, line.error));
    each.collect()
}

fn targets() -> Vec<String> {
    let ports = ALWAYS..ALWAYS + PORTS;
    let tcp = ports.clone().map(|port| format!("tcp/{HOST}:{port}"));
    // Where the server's policy refuses a datagram, its sender sees nothing.
    let by_server = [OLD[1], NEW[1]];
    let udp = ports.filter(|port| !by_server.contains(port));
    tcp.chain(udp.map(|port| format!("udp/{HOST}:{port}")))
        .collect()
}

/// Numbers that are drawn.
pub struct Random(u64);

impl Random {
    /// From `RINGFENCE_SEED`, or the time; printed, so that a failure can be repeated.
    #[expect(clippy::print_stderr, reason = "a failing test shows its seed")]
    pub fn new() -> Self {
        let given = std::env::var("RINGFENCE_SEED").ok();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let seed = given.map_or(now.as_secs(), |text| text.parse().unwrap());
        eprintln!("RINGFENCE_SEED={seed}");
        Self(seed | 1)
    }

    /// From 1 to `most` (xorshift64*, Vigna 2016).
    pub fn up_to(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % most + 1
    }
}
