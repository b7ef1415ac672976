//! The ground on which attempts to get round a policy are made.
//!
//! `app` may ask `api` (TCP) and `dns` (UDP), and nobody else; what `rogue` may do depends on the scene. `vault`
//! (7000/tcp, 7001/udp) lets in `free` alone, whom nothing restricts. `far` is a host at the other end of a
//! wire (10.99.0.2, `fd99::2`) that no agent guards and that offers the same ports. Every server
//! echoes, at every address.

use std::{cell::RefCell, collections::BTreeMap, path::Path, process::Command};

use ringfence_tests::{
    Actor, Agent, Outcome, Running, Sandbox,
    flows::line,
    namespace::Namespace,
    policy::{Rule, policy, workloads},
    program,
};

use crate::attempt::Attempt;

const NAMES: [&str; 6] = ["app", "rogue", "free", "api", "dns", "vault"];
/// Stands in a script where Ringfence comes in: the start of the agent, or a change of its policy.
const THEN: &str = "then";

/// The place with its servers.
pub struct Ground<'a> {
    sandbox: &'a Sandbox,
    far: Namespace,
    servers: RefCell<Vec<Running>>,
}

/// An attempt that is under way.
struct Attack<'a> {
    steps: Vec<&'a str>,
    parts: [Option<Running>; 3],
}

impl<'a> Ground<'a> {
    pub fn new(sandbox: &'a Sandbox) -> Self {
        let far = Namespace::new();
        sandbox.namespace().connect(&far);
        let ground = Self {
            sandbox,
            far,
            servers: RefCell::default(),
        };
        for (name, protocol, address) in [
            ("vault", "tcp", "[::]:7000"),
            ("vault", "udp", "[::]:7001"),
            ("far", "tcp", "[::]:7000"),
            ("far", "udp", "[::]:7001"),
            ("api", "tcp", "[::]:8080"),
            ("dns", "udp", "[::]:5300"),
        ] {
            ground.serve(&ground.actor(name), &[protocol, address, "--echo"]);
        }
        ground
    }

    pub fn serve(&self, actor: &Actor, arguments: &[&str]) {
        self.servers.borrow_mut().push(actor.serve(arguments));
    }

    pub fn near(&self) -> &Namespace {
        self.sandbox.namespace()
    }

    pub fn far(&self) -> &Namespace {
        &self.far
    }

    /// Number of a device near by.
    pub fn index_of(&self, device: &str) -> String {
        let text = self.output("ip -o link show ", device);
        text.split(':').next().unwrap().to_owned()
    }

    /// A counter of the kernel near by, of those that stand in lines after one with their names.
    pub fn counter(&self, group: &str, name: &str) -> u64 {
        let text = self.output("cat ", "/proc/thread-self/net/netstat");
        let group = format!("{group}:");
        let mut lines = text.lines().filter(|line| line.starts_with(&group));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let mut pairs = names.split(' ').zip(values.split(' '));
        let found = pairs.find(|(it, _)| *it == name);
        found.unwrap().1.parse().unwrap()
    }

    /// What a command prints near by.
    fn output(&self, command: &str, last: &str) -> String {
        let output = Command::new(program::own("ringfence-traffic"))
            .arg("--netns")
            .arg(self.near().path())
            .arg("run")
            .args(command.split_ascii_whitespace())
            .arg(last)
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    pub fn actor(&self, name: &str) -> Actor {
        if name == "far" {
            self.sandbox.stranger(name).in_namespace(&self.far)
        } else {
            self.sandbox.actor(name)
        }
    }

    /// Makes each attempt without the agent, where it succeeds, and with it.
    #[track_caller]
    pub fn play(&self, policy: &str, attempts: &[Attempt]) {
        for attempt in attempts {
            let outcome = self.begin(attempt, attempt.parts[0]).go_on();
            assert_eq!(outcome, "ok", "{}: without the agent", attempt.what);
        }
        let agent = Agent::start(self.sandbox, policy);
        let mut judged = Judged::default();
        for attempt in attempts {
            if attempt.repeatable {
                let outcome = self.begin(attempt, "free").go_on();
                assert_eq!(outcome, "ok", "{}: who may", attempt.what);
            }
            let _allowed = judged.news(&agent);
            let mut attack = self.begin(attempt, attempt.parts[0]);
            let ended = attack.go_on();
            attempt.assert_failed(&ended, &judged.news(&agent));
        }
        agent.assert_counters();
    }

    /// Makes each attempt as far as its step `then`, lets Ringfence come in, and goes on. `before` is the
    /// policy of the first half; without one there is no agent.
    #[track_caller]
    pub fn play_across(&self, before: Option<&str>, policy: &str, attempts: &[Attempt]) {
        let agent = before.map(|before| Agent::start(self.sandbox, before));
        for attempt in attempts {
            let mut attack = self.begin(attempt, attempt.parts[0]);
            assert_eq!(attack.go_on(), THEN, "{}: before", attempt.what);
            assert_eq!(attack.go_on(), "ok", "{}: nothing happens", attempt.what);
        }
        let prepare = |attempt| {
            let mut attack = self.begin(attempt, attempt.parts[0]);
            assert_eq!(attack.go_on(), THEN, "{}: before", attempt.what);
            attack
        };
        let mut attacks: Vec<_> = attempts.iter().map(prepare).collect();
        let mut judged = Judged::default();
        if let Some(agent) = &agent {
            let _before = judged.news(agent);
            agent.set_policy(policy);
        }
        let agent = agent.unwrap_or_else(|| Agent::start(self.sandbox, policy));
        let ended: Vec<_> = attacks.iter_mut().map(Attack::go_on).collect();
        let new = judged.news(&agent);
        for ((attempt, ended), attack) in attempts.iter().zip(ended).zip(&attacks) {
            let by = format!("[{}]", attack.pid());
            let own: Vec<_> = new.iter().filter(|it| it.ends_with(&by)).cloned().collect();
            attempt.assert_failed(&ended, &own);
        }
        agent.assert_counters();
    }

    fn begin<'b>(&self, attempt: &'b Attempt, by: &str) -> Attack<'b> {
        let [_, with, and] = attempt.parts;
        // Only those that have something to do.
        let acts = |part: &str| {
            attempt
                .script
                .split("; ")
                .any(|step| step.starts_with(part))
        };
        let parts = [(by, ""), (with, "b "), (and, "c ")]
            .map(|(name, part)| acts(part).then(|| self.actor(name).puppet()));
        let mut steps: Vec<_> = attempt.script.split("; ").collect();
        steps.reverse();
        Attack { steps, parts }
    }
}

impl Attack<'_> {
    fn pid(&self) -> u32 {
        self.parts[0].as_ref().unwrap().pid()
    }

    /// Goes on to [`THEN`], or to the end: `ok`, or the step that failed and its error.
    #[track_caller]
    fn go_on(&mut self) -> String {
        let attacker = self.pid().to_string();
        while let Some(step) = self.steps.pop() {
            if step == THEN {
                return THEN.to_owned();
            }
            let step = step.replace("{pid}", &attacker);
            let (part, words) = match step.split_once(' ') {
                Some(("b", words)) => (1, words),
                Some(("c", words)) => (2, words),
                _ => (0, step.as_str()),
            };
            let outcome = self.parts[part].as_mut().unwrap().ask(words);
            if !outcome.ok() {
                return ended(&outcome);
            }
        }
        "ok".to_owned()
    }
}

/// The policy of the ground; `rogue` is what the workload of that name has for rules.
pub fn rules(rogue: &[Rule<'_>]) -> String {
    let app = [
        ("egress", "to = [{ workload = \"api\" }]\nports = [\"tcp\"]"),
        ("egress", "to = [{ workload = \"dns\" }]\nports = [\"udp\"]"),
    ];
    let vault = [("ingress", "from = [{ workload = \"free\" }]")];
    workloads(&NAMES)
        + &policy("app", "default-deny = [\"ingress\"]", &app)
        + &policy("rogue", "", rogue)
        + &policy("vault", "", &vault)
}

/// `rogue` may ask everybody; what it is asked is no matter.
pub fn open_rogue() -> String {
    rules(&[("egress", "")])
}

/// `rogue` may ask nobody and be asked by nobody.
pub fn closed_rogue() -> String {
    rules(&[("egress", "to = []"), ("ingress", "from = []")])
}

/// Step and error of what failed.
fn ended(outcome: &Outcome) -> String {
    let error = outcome.error.as_deref().unwrap_or("ok");
    format!("{} {error}", outcome.step)
}

/// Records that were looked at, by their text and how often it was there.
#[derive(Default)]
pub struct Judged(BTreeMap<String, usize>);

impl Judged {
    /// What was recorded since the last call.
    #[track_caller]
    pub fn news(&mut self, agent: &Agent) -> Vec<String> {
        let mut now = BTreeMap::new();
        for flow in &agent.log() {
            *now.entry(line(flow)).or_insert(0) += 1;
        }
        let before = std::mem::replace(&mut self.0, now);
        let more = |(line, number): (&String, &usize)| {
            let new = number.saturating_sub(before.get(line).copied().unwrap_or(0));
            vec![line.clone(); new]
        };
        self.0.iter().flat_map(more).collect()
    }
}

/// The process that holds a namespace, for `ip link … netns PID`.
pub fn holder(namespace: &Namespace) -> String {
    let path = namespace.path();
    let pid = path.ancestors().nth(2).and_then(Path::file_name).unwrap();
    pid.to_string_lossy().into_owned()
}
