//! A large host: many cgroups, workloads, prefixes, listeners and open connections at once.

use std::{fmt::Write as _, time::Instant};

use ringfence_tests::{Agent, Sandbox};
use serde::{Deserialize, Serialize};

use crate::{
    changes::{millis, resident},
    policies::names,
    process::{Place, Worker, check},
};

/// One line of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scale {
    pub what: String,
    pub figure: String,
}

/// How large.
#[derive(Clone, Copy)]
pub struct Size {
    pub workloads: usize,
    /// Below the cgroup of each workload.
    pub children: usize,
    pub prefixes: usize,
    /// Pairs of processes with connections.
    pub pairs: usize,
    /// Connections of each.
    pub connections: usize,
    /// Listening sockets of each of four processes.
    pub listeners: usize,
}

/// 10,000 cgroups, 2,000 workloads, 200,000 sockets, 100,000 prefixes, 50,000 listeners.
pub const FULL: Size = Size {
    workloads: 2_000,
    children: 4,
    prefixes: 100_000,
    pairs: 7,
    connections: 14_300,
    listeners: 12_500,
};

/// The same kind in a few seconds.
pub const SHORT: Size = Size {
    workloads: 200,
    children: 4,
    prefixes: 10_000,
    pairs: 2,
    connections: 2_000,
    listeners: 1_000,
};

/// Open files of a process at full scale: its connections, and some for everything else.
pub const FILES: u64 = FULL.connections as u64 + 200;

/// First port of the pairs' servers.
const PORT: usize = 7_100;

/// Builds the host, starts an agent over it, and takes it through a change and a revocation of everything.
pub fn measure(size: Size) -> Vec<Scale> {
    let sandbox = Sandbox::new("scale");
    sandbox
        .namespace()
        .sysctl("net/ipv4/ip_local_port_range", "10000 65000");
    for workload in 0..size.workloads {
        for child in 0..size.children {
            let _path = sandbox.cgroup(&format!("w/{workload}/{child}"));
        }
    }
    let netns = sandbox.namespace().path();
    let worker = |number: usize, role: &str| {
        check();
        let cgroup = sandbox.cgroup(&format!("w/{number}/0"));
        let place = Place {
            cgroup: &cgroup,
            netns: &netns,
            cpu: number % 2,
        };
        Worker::start(place, role)
    };
    let listening: Vec<_> = (0..4)
        .map(|number| {
            worker(
                100 + number,
                &format!("listen:127.0.1.{number}:{}", size.listeners),
            )
        })
        .collect();
    let began = Instant::now();
    let mut agent = Agent::start(&sandbox, &policy(size, true));
    let start = millis(began.elapsed());
    let before = resident(&mut agent);
    let mut pairs: Vec<_> = (0..size.pairs)
        .map(|pair| {
            let server = worker(pair * 2, &format!("crowd:{}", PORT + pair));
            let client = worker(pair * 2 + 1, "call");
            (server, client)
        })
        .collect();
    connect(&mut pairs, size);
    let held = resident(&mut agent);
    let began = Instant::now();
    let endpoints = agent.client().endpoints().unwrap().len();
    let listed = millis(began.elapsed());
    let (revoked, cut) = revoke(&agent, size, &mut pairs);
    agent.set_policy(&policy(size, true));
    connect(&mut pairs, size);
    agent.kill();
    let began = Instant::now();
    agent.restart();
    let adopted = millis(began.elapsed());
    drop(listening);
    let line = |what: &str, figure: String| Scale {
        what: what.to_owned(),
        figure,
    };
    vec![
        line(
            "cgroups",
            format!("{}", size.workloads * (size.children + 1)),
        ),
        line("workloads", size.workloads.to_string()),
        line("prefixes of one workload", size.prefixes.to_string()),
        line(
            "listening sockets; endpoints listed in",
            format!("{}; {endpoints} in {listed:.0} ms", 4 * size.listeners),
        ),
        line(
            "sockets of open connections",
            (2 * size.pairs * size.connections).to_string(),
        ),
        line(
            "start to enforcing, without connections",
            format!("{start:.0} ms"),
        ),
        line(
            "start over all connections after a kill",
            format!("{adopted:.0} ms"),
        ),
        line(
            "agent resident without connections, with",
            format!(
                "{} MiB, {} MiB",
                before.div_ceil(1_024),
                held.div_ceil(1_024)
            ),
        ),
        line(
            "revocation of all connections: SIGHUP to the last reset",
            format!("{revoked:.0} ms, {cut} cut"),
        ),
    ]
}

/// Lets each pair have as many connections as it should.
fn connect(pairs: &mut [(Worker, Worker)], size: Size) {
    for (pair, (_, client)) in pairs.iter_mut().enumerate() {
        let line = format!("idle 127.0.0.1:{} 0 {}", PORT + pair, size.connections);
        let (_, held) = client.ask(&line);
        assert_eq!(held, size.connections as u64, "connections");
    }
}

/// Takes every rule away and waits until the last connection is cut.
fn revoke(agent: &Agent, size: Size, pairs: &mut [(Worker, Worker)]) -> (f64, u64) {
    for (_, client) in pairs.iter_mut() {
        client.tell("drained 127.0.0.1:1 20000");
    }
    agent.write_policy(&policy(size, false));
    let began = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let began = began.unwrap().as_secs_f64();
    agent.reload();
    let ends = pairs.iter_mut().map(|(_, client)| client.answer());
    let (last, cut) = ends.fold((0.0_f64, 0), |(last, cut), (end, number)| {
        (last.max(end), cut + number)
    });
    let error = agent.status().policy_error;
    assert!(error.is_empty(), "{error}");
    let all = (size.pairs * size.connections) as u64;
    assert_eq!(cut, all, "connections cut within 20 s");
    ((last - began) * 1e3, cut)
}

fn policy(size: Size, allowed: bool) -> String {
    let mut text = String::new();
    let ports = if allowed {
        format!("{PORT}-{}/tcp", PORT + size.pairs)
    } else {
        "1/tcp".to_owned()
    };
    for (number, name) in names("w").take(size.workloads).enumerate() {
        let _ = writeln!(
            text,
            "[[workload]]\nname = \"{name}\"\nlabels = {{ app = \"a{}\" }}\nmatch = {{ cgroup = \"/w/{number}\" }}",
            number % 2
        );
    }
    for (number, direction, peers) in [(1, "egress", "to"), (0, "ingress", "from")] {
        let _ = writeln!(
            text,
            "[[policy]]\nname = \"p{number}\"\napplies-to = {{ app = \"a{number}\" }}\n[[policy.{direction}]]\n\
             {peers} = [{{ labels = {{ app = \"a{}\" }} }}]\nports = [\"{ports}\"]",
            1 - number
        );
    }
    text += "[[workload]]\nname = \"prefixes\"\nlabels = { app = \"prefixes\" }\nmatch = { cgroup = \"/prefixes\" }\n\
             [[policy]]\nname = \"prefixes\"\napplies-to = { app = \"prefixes\" }\n[[policy.egress]]\nto = [\n";
    for number in 0..size.prefixes {
        let _ = writeln!(
            text,
            "{{ cidr = \"{}.{}.{}.1/32\" }},",
            100 + (number >> 16),
            (number >> 8) & 255,
            number & 255
        );
    }
    text + "]\nports = [\"443/tcp\"]\n"
}
