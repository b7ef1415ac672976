//! A first paired measurement: the same client and server inside and outside of a guarded cgroup,
//! interleaved, with the unguarded pair measured twice so that the noise shows.
//!
//! Run as root: `cargo run --release -p ringfence-tests --bin ringfence-bench` after `cargo xtask build`,
//! with `RINGFENCE_BIN_DIR` naming the directory of the agent. Traffic stays on loopback.
#![expect(clippy::unwrap_used, reason = "a measurement fails by panicking")]
#![expect(clippy::print_stdout, reason = "the figures go to the terminal")]

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Instant,
};

use ringfence_tests::{Agent, Sandbox};

const ROUNDS: usize = 31;
const CRR: u32 = 2_000;
const RR: u32 = 20_000;
const STREAM_BYTES: usize = 1 << 30;

/// Allow lists on both sides, so that every connection is judged by rules.
const POLICY: &str = r#"
[[workload]]
name = "client"
labels = { app = "client" }
match = { cgroup = "/client" }
[[workload]]
name = "server"
labels = { app = "server" }
match = { cgroup = "/server" }
[[policy]]
name = "client"
applies-to = { app = "client" }
[[policy.egress]]
to = [{ workload = "server" }]
ports = ["7000-7001/tcp"]
[[policy]]
name = "server"
applies-to = { app = "server" }
[[policy.ingress]]
from = [{ workload = "client" }]
ports = ["7000-7001/tcp"]
"#;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", port, cgroup] => serve(port, cgroup),
        ["call", what, port, cgroup] => call(what, port, cgroup),
        _ => measure(),
    }
}

fn measure() {
    let sandbox = Sandbox::new("bench");
    let agent = Agent::start(&sandbox, POLICY);
    let outside = sandbox.guarded().with_file_name(format!(
        "{}-outside",
        sandbox.guarded().file_name().unwrap().to_string_lossy()
    ));
    let cgroups = [sandbox.cgroup("client"), sandbox.cgroup("server")];
    let mut servers = [
        start(&["serve", "7000", &cgroups[1].display().to_string()]),
        start(&["serve", "7001", &outside.display().to_string()]),
    ];
    for what in ["crr", "rr", "stream"] {
        let mut guarded = Vec::new();
        let mut bare = Vec::new();
        let mut again = Vec::new();
        for round in 0..ROUNDS {
            let mut order = [0, 1, 2];
            order.rotate_left(round % 3);
            for which in order {
                let (port, cgroup, into): (_, &Path, _) = match which {
                    0 => ("7000", &cgroups[0], &mut guarded),
                    1 => ("7001", &outside, &mut bare),
                    _ => ("7001", &outside, &mut again),
                };
                into.push(one(what, port, cgroup));
            }
        }
        let unit = if what == "stream" { "GiB/s" } else { "us" };
        let [with, without, twice] = [guarded, bare, again].map(median);
        println!(
            "{what}: with {with:.2} {unit}, without {without:.2} {unit}, ratio {:.3}; A/A {:.3}",
            with / without,
            twice / without
        );
    }
    for server in &mut servers {
        let _ = server.kill();
        let _ = server.wait();
    }
    let counts = agent.status().counts;
    println!("events lost: {}", counts.get("event-lost").unwrap_or(&0));
    drop(agent);
    drop(sandbox);
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap()
}

fn start(arguments: &[&str]) -> Child {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let _ = output.read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "ready");
    child
}

fn one(what: &str, port: &str, cgroup: &Path) -> f64 {
    let output = Command::new(env::current_exe().unwrap())
        .args(["call", what, port, &cgroup.display().to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().parse().unwrap()
}

fn enter(cgroup: &str) {
    fs::write(
        format!("{cgroup}/cgroup.procs"),
        std::process::id().to_string(),
    )
    .unwrap();
}

fn serve(port: &str, cgroup: &str) {
    enter(cgroup);
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).unwrap();
    println!("ready");
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        stream.set_nodelay(true).unwrap();
        let _ = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 18];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                if length == 1 && stream.write_all(&[1]).is_err() {
                    break;
                }
            }
        });
    }
}

fn call(what: &str, port: &str, cgroup: &str) {
    enter(cgroup);
    let address = format!("127.0.0.1:{port}");
    let connect = || {
        let stream = TcpStream::connect(&address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    };
    let exchange = |stream: &mut TcpStream| {
        stream.write_all(&[1]).unwrap();
        stream.read_exact(&mut [0]).unwrap();
    };
    let began = Instant::now();
    let figure = match what {
        "crr" => {
            for _ in 0..CRR {
                exchange(&mut connect());
            }
            began.elapsed().as_secs_f64() * 1e6 / f64::from(CRR)
        }
        "rr" => {
            let mut stream = connect();
            for _ in 0..RR {
                exchange(&mut stream);
            }
            began.elapsed().as_secs_f64() * 1e6 / f64::from(RR)
        }
        _ => {
            let mut stream = connect();
            let buffer = vec![0; 1 << 18];
            let mut sent = 0;
            while sent < STREAM_BYTES {
                stream.write_all(&buffer).unwrap();
                sent += buffer.len();
            }
            1.0 / began.elapsed().as_secs_f64()
        }
    };
    println!("{figure}");
}
