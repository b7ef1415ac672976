//! The kernel is the third party of the comparison: a sample of the random policies that the oracle and
//! the compiler agree on is loaded, and real sockets ask the kernel.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use nix::time::{ClockId, clock_gettime};
use ringfence_agent::{
    datapath::{self, Datapath, Options, lock, mount},
    identity::Tables,
};
use ringfence_common::abi::{
    CgroupEntry, Direction, Settings, Verdict,
    identity::{HOST, WORLD, is_workload},
    settings::DENY_UNSELECTED,
};
use ringfence_policy::{
    compile::{Context, compile},
    explain::Query,
    model::{Identities, PolicySet},
    oracle,
};
use ringfence_tests::{Sandbox, program};

/// Policies of one run; each is asked about up to 40 flows.
const CASES: u64 = 60;
/// Seeds beside those of the model test.
const FIRST_SEED: u64 = 1_000_000;

#[test]
fn kernel_agrees_with_oracle() {
    let sandbox = Sandbox::new("oracle");
    mount::bpffs(&sandbox.pins()).unwrap();
    let mut kernel = Kernel::new(&sandbox);
    let mut seen = BTreeMap::new();
    for seed in FIRST_SEED..FIRST_SEED + CASES {
        let (set, identities, mut context, queries) = oracle::random_case(seed);
        context.boot_now_ns = boot_now_ns();
        kernel.load(&set, &identities, &context);
        for query in queries {
            let Some(flow) = Flow::of(&query) else {
                continue;
            };
            let Some(passed) = kernel.try_flow(&flow) else {
                continue;
            };
            let expected = expect(&set, &identities, &context, &flow);
            assert_eq!(passed, expected.0, "seed {seed}, {flow:?}: {}", expected.1);
            *seen.entry(expected.1).or_insert(0) += 1;
        }
    }
    drop(kernel);
    assert_eq!(sandbox.remove(), Vec::<std::path::PathBuf>::new());
    for wanted in [
        "rule-allow",
        "rule-deny",
        "default-deny",
        "expired-deny",
        "unselected-allow",
        "unselected-deny",
        "self-allow",
        "direction-allow",
        "peer:rule-deny",
        "peer:default-deny",
    ] {
        assert!(
            seen.contains_key(wanted),
            "no flow reached {wanted}: {seen:?}"
        );
    }
    assert!(seen.values().sum::<i32>() >= 500, "{seen:?}");
}

/// An outbound flow that a real socket can try.
#[derive(Clone, Copy, Debug)]
struct Flow {
    local: u32,
    peer: u32,
    address: SocketAddr,
    protocol: &'static str,
    number: u8,
}

impl Flow {
    fn of(query: &Query) -> Option<Self> {
        let (protocol, number) = match query.protocol {
            6 => ("tcp", 6),
            17 => ("udp", 17),
            _ => return None,
        };
        if query.port == 0 || !is_workload(query.local) {
            return None;
        }
        let address = if is_workload(query.peer) {
            IpAddr::from([127, 0, 0, 1])
        } else {
            let v6 = Ipv6Addr::from(query.peer_address?);
            v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
        };
        let peer = match (is_workload(query.peer), address.is_loopback()) {
            (true, _) => query.peer,
            (false, false) if !address.is_unspecified() => WORLD,
            _ => return None,
        };
        Some(Self {
            local: query.local,
            peer,
            address: SocketAddr::new(address, query.port),
            protocol,
            number,
        })
    }

    fn mapped(&self) -> [u8; 16] {
        match self.address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        }
    }
}

/// Whether the oracle lets the flow pass, and why: the caller's policy first, then the listener's.
fn expect(
    set: &PolicySet,
    identities: &Identities,
    context: &Context,
    flow: &Flow,
) -> (bool, String) {
    let mut query = Query {
        local: flow.local,
        direction: Direction::Egress,
        peer: flow.peer,
        verified: is_workload(flow.peer),
        peer_address: Some(flow.mapped()),
        protocol: flow.number,
        port: flow.address.port(),
    };
    let ask =
        |query: &Query| oracle::judge(set, identities, context, query, boot_now_ns()).enforced;
    let ours = ask(&query);
    if ours.verdict == Verdict::Deny || !is_workload(flow.peer) {
        return (
            ours.verdict == Verdict::Allow,
            ours.reason.name().to_owned(),
        );
    }
    (query.local, query.peer) = (query.peer, query.local);
    query.direction = Direction::Ingress;
    let theirs = ask(&query);
    if theirs.verdict == Verdict::Deny {
        return (false, format!("peer:{}", theirs.reason.name()));
    }
    (true, ours.reason.name().to_owned())
}

/// The programs on a cgroup of their own, and a process that moves between two cgroups below it.
struct Kernel {
    datapath: Datapath,
    root: u64,
    cgroups: [(String, u64); 2],
    probe: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Kernel {
    fn new(sandbox: &Sandbox) -> Self {
        let options = Options {
            pin_dir: sandbox.pins(),
            cgroup_root: sandbox.guarded().to_path_buf(),
            events_buffer: 1 << 20,
            flow_entries: 4096,
            answering: ringfence_common::abi::Answering::default(),
            debug: false,
        };
        let lock = lock::pins(&options.pin_dir).unwrap();
        let mut datapath = Datapath::open(options, lock).unwrap();
        datapath.attach().unwrap();
        let id = |path: &Path| fs::metadata(path).unwrap().ino();
        let cgroups = ["caller", "listener"].map(|name| {
            let path = sandbox.cgroup(name);
            (path.display().to_string(), id(&path))
        });
        let mut probe = Command::new(program::own("ringfence-probe"))
            .arg(sandbox.namespace().path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            root: id(sandbox.guarded()),
            datapath,
            cgroups,
            input: probe.stdin.take().unwrap(),
            output: BufReader::new(probe.stdout.take().unwrap()),
            probe,
        }
    }

    fn load(&mut self, set: &PolicySet, identities: &Identities, context: &Context) {
        let compiled = compile(set, identities, context).unwrap();
        let flags = if context.deny_unselected {
            DENY_UNSELECTED
        } else {
            0
        };
        let settings = Settings {
            flags,
            ..Settings::default()
        };
        self.datapath.configure(settings, &[]);
        self.datapath.apply(&compiled).unwrap();
        // As the next process would find it.
        let held = datapath::Tables::open(&self.datapath.directory()).unwrap();
        assert_eq!(held.in_force().unwrap(), compiled.tables);
    }

    /// Whether the kernel lets a connect pass; `None`: the listener could not be made.
    fn try_flow(&mut self, flow: &Flow) -> Option<bool> {
        let listener = if is_workload(flow.peer) {
            flow.peer
        } else {
            HOST
        };
        let entry = |identity| CgroupEntry {
            identity,
            ..CgroupEntry::default()
        };
        let tables = Tables {
            cgroups: [
                (self.root, entry(HOST)),
                (self.cgroups[0].1, entry(flow.local)),
                (self.cgroups[1].1, entry(listener)),
            ]
            .into_iter()
            .collect(),
            ..Tables::default()
        };
        self.datapath.identities.apply(&tables).unwrap();
        let [caller, listener] = self.cgroups.clone().map(|(path, _)| path);
        if is_workload(flow.peer) {
            assert_eq!(self.tell(&format!("enter {listener}")), "ok");
            if self.tell(&format!("bind {} {}", flow.protocol, flow.address)) != "ok" {
                return None;
            }
        }
        assert_eq!(self.tell(&format!("enter {caller}")), "ok");
        let answer = self.tell(&format!("connect {} {}", flow.protocol, flow.address));
        assert_eq!(self.tell("drop"), "ok");
        Some(answer != libc_eperm())
    }

    fn tell(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").unwrap();
        let mut answer = String::new();
        let _ = self.output.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = self.probe.kill();
        let _ = self.probe.wait();
    }
}

fn libc_eperm() -> String {
    (nix::errno::Errno::EPERM as i32).to_string()
}

fn boot_now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
    u64::try_from(std::time::Duration::from(now).as_nanos()).unwrap()
}
