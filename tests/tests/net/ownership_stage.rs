//! Two puppets, whom they call, and scripts about what becomes of a socket between them.
//!
//! A script is a list of steps with `; ` between them. A step begins with the puppet that acts: `a` and `b` are the two workloads, in both orders,
//! and `c` is a caller whom no policy restricts. In braces stand the cgroup, the program, the user and the group of a
//! part (`{b}`, `{b.exe}`, `{b.uid}`, `{b.gid}`), the servers `{tcp}` and `{udp}`, the address `{port}` for listeners
//! of the script, a mailbox `{box}` of `b` and another network namespace `{netns}`.
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::path::PathBuf;

use ringfence_tests::{
    Actor, Agent, Outcome, Running, Sandbox,
    flows::line,
    namespace::Namespace,
    policy::{policy, workload},
};

pub const TCP: &str = "127.0.0.1:5432";
pub const UDP: &str = "127.0.0.1:5300";
const PORT: &str = "127.0.0.1:7000";
const UIDS: [u32; 2] = [10_001, 10_002];
const GIDS: [u32; 2] = [70_001, 70_002];

/// By what the two workloads are told apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    Cgroup,
    Executable,
    User,
    Group,
}

/// `good` may call and be called, `bad` may not.
pub const GOOD: usize = 0;
pub const BAD: usize = 1;
pub const NAMES: [&str; 2] = ["good", "bad"];

/// The place of a scene.
pub struct Stage<'a> {
    sandbox: &'a Sandbox,
    by: By,
    actors: [Actor; 2],
    caller: Actor,
    other: Namespace,
    scripts: std::cell::Cell<usize>,
    _servers: Vec<Running>,
}

/// The puppets of one script that was played, with what its last step came to.
pub struct Played {
    puppets: [Running; 3],
    names: [(String, String); 13],
    pub last: Outcome,
}

impl<'a> Stage<'a> {
    pub fn new(sandbox: &'a Sandbox, by: By) -> Self {
        let db = sandbox.actor("db");
        let other = Namespace::new();
        let servers = vec![
            db.serve(&["tcp", TCP, "--echo"]),
            db.serve(&["udp", UDP, "--echo"]),
            db.in_namespace(&other).serve(&["tcp", TCP, "--echo"]),
        ];
        let actors = NAMES.map(|name| match by {
            By::Cgroup => sandbox.actor(name),
            By::Executable | By::User | By::Group => sandbox.actor(name).in_cgroup(sandbox, "app"),
        });
        Self {
            sandbox,
            by,
            actors,
            caller: sandbox.actor("caller"),
            other,
            scripts: std::cell::Cell::new(0),
            _servers: servers,
        }
    }

    /// The policy that lets `allowed` call and be called, and the other one do neither.
    pub fn policy(&self, allowed: usize) -> String {
        let mut text =
            workload("db", "cgroup = \"/db\"") + &workload("caller", "cgroup = \"/caller\"");
        for (index, name) in NAMES.iter().enumerate() {
            let selectors = match self.by {
                By::Cgroup => format!("cgroup = \"/{name}\""),
                By::Executable => {
                    format!(
                        "cgroup = \"/app\", exe = \"{}\"",
                        self.actors[index].program().display()
                    )
                }
                By::User => format!("cgroup = \"/app\", uid = {}", UIDS[index]),
                By::Group => format!("cgroup = \"/app\", gid = {}", GIDS[index]),
            };
            text += &workload(name, &selectors);
            text += &if index == allowed {
                let rules = [
                    ("egress", "ports = [\"5432/tcp\", \"5300/udp\"]"),
                    ("ingress", "ports = [\"7000/tcp\"]"),
                ];
                policy(name, "", &rules)
            } else {
                policy(name, "default-deny = [\"egress\", \"ingress\"]", &[])
            };
        }
        text
    }

    /// An agent that knows the programs of the scene.
    pub fn agent(&self) -> Agent {
        let agent = Agent::start(self.sandbox, &self.policy(GOOD));
        for actor in &self.actors {
            // An executable that was not judged yet would be held.
            let _judged = actor.tcp(TCP, &["--timeout-ms", "2000"]);
        }
        agent
    }

    /// Plays a script with the part `a` for one of the two workloads; every step but the last must succeed.
    #[track_caller]
    pub fn play(&self, script: &str, a: usize) -> Played {
        let (played, to_its_end) = self.play_until_refused(script, a);
        assert!(to_its_end, "{script}: {:?}", played.last);
        played
    }

    /// The same; says whether the script came to its last step, whatever that came to.
    #[track_caller]
    pub fn play_until_refused(&self, script: &str, a: usize) -> (Played, bool) {
        let parts = [&self.actors[a], &self.actors[1 - a]];
        let puppets = [parts[0].puppet(), parts[1].puppet(), self.caller.puppet()];
        self.scripts.set(self.scripts.get() + 1);
        let mailbox = format!("box{}", self.scripts.get());
        let mut played = Played {
            puppets,
            names: self.names(a, &self.sandbox.files().join(mailbox)),
            last: Outcome::default(),
        };
        let mut steps = script.split("; ").peekable();
        while let Some(step) = steps.next() {
            let outcome = played.step(step);
            let is_last = steps.peek().is_none();
            if is_last || outcome.error.as_deref() == Some("EPERM") {
                played.last = outcome;
                return (played, is_last);
            }
            assert!(outcome.ok(), "{step}: {outcome:?}");
        }
        (played, true)
    }

    fn names(&self, a: usize, mailbox: &std::path::Path) -> [(String, String); 13] {
        let text = |path: PathBuf| path.display().to_string();
        let cgroup = |index: usize| match self.by {
            By::Cgroup => text(self.sandbox.cgroup(NAMES[index])),
            By::Executable | By::User | By::Group => text(self.sandbox.cgroup("app")),
        };
        let exe = |index: usize| text(self.actors[index].program().to_owned());
        let b = 1 - a;
        [
            ("{a}", cgroup(a)),
            ("{b}", cgroup(b)),
            ("{a.exe}", exe(a)),
            ("{b.exe}", exe(b)),
            ("{a.uid}", UIDS[a].to_string()),
            ("{b.uid}", UIDS[b].to_string()),
            ("{a.gid}", GIDS[a].to_string()),
            ("{b.gid}", GIDS[b].to_string()),
            ("{tcp}", TCP.to_owned()),
            ("{udp}", UDP.to_owned()),
            ("{port}", PORT.to_owned()),
            ("{box}", text(mailbox.to_owned())),
            ("{netns}", text(self.other.path())),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }
}

impl Played {
    /// One more step of the script.
    #[track_caller]
    pub fn step(&mut self, step: &str) -> Outcome {
        let (part, words) = step.split_once(' ').unwrap();
        let puppet = match part {
            "a" => &mut self.puppets[0],
            "b" => &mut self.puppets[1],
            _ => &mut self.puppets[2],
        };
        let mut words = words.to_owned();
        for (name, value) in &self.names {
            words = words.replace(name, value);
        }
        puppet.ask(&words)
    }
}

/// The step that uses what the script has made.
pub fn last_of(script: &str) -> &str {
    script.rsplit("; ").next().unwrap()
}

/// Panics unless the flow log has one record that begins and ends like this.
#[track_caller]
pub fn assert_one(agent: &Agent, what: &str, start: &str, end: &str) {
    let log = agent.log();
    let lines: Vec<_> = log.iter().map(line).collect();
    let number = lines
        .iter()
        .filter(|line| line.starts_with(start) && line.ends_with(end))
        .count();
    assert_eq!(number, 1, "{what}: {start} … {end}\n{lines:#?}");
}
