//! Makes sockets on command, as the process that some cgroup stands for; for the comparison of the
//! kernel with the oracle.
//!
//! Reads lines from standard input and answers each with `ok` or the number of the error:
//! `enter CGROUP`, `bind PROTOCOL ADDRESS:PORT` (and listen; kept until `drop`), `connect PROTOCOL
//! ADDRESS:PORT` (closed at once), `drop`. The first argument is the network namespace to live in.
#![expect(clippy::unwrap_used, reason = "a tool of the tests fails by panicking")]
#![expect(clippy::print_stdout, reason = "answers go to the test")]

use std::{
    env, fs,
    fs::File,
    io::{self, BufRead as _, Write as _},
    net::SocketAddr,
};

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};

fn main() {
    let namespace = File::open(env::args().nth(1).unwrap()).unwrap();
    setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
    let mut held = Vec::new();
    for line in io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let result = match *words {
            ["enter", cgroup] => fs::write(
                format!("{cgroup}/cgroup.procs"),
                std::process::id().to_string(),
            ),
            ["bind", protocol, address] => bind(protocol, address).map(|socket| held.push(socket)),
            ["connect", protocol, address] => connect(protocol, address),
            ["drop"] => {
                held.clear();
                Ok(())
            }
            _ => panic!("unknown command: {line}"),
        };
        match result {
            Ok(()) => println!("ok"),
            Err(error) => println!("{}", error.raw_os_error().unwrap()),
        }
        io::stdout().flush().unwrap();
    }
}

fn socket(protocol: &str, address: SocketAddr) -> io::Result<Socket> {
    let (kind, protocol) = match protocol {
        "tcp" => (Type::STREAM, Protocol::TCP),
        "udp" => (Type::DGRAM, Protocol::UDP),
        other => panic!("unknown protocol: {other}"),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn bind(protocol: &str, address: &str) -> io::Result<Socket> {
    let address: SocketAddr = address.parse().unwrap();
    let socket = socket(protocol, address)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    if protocol == "tcp" {
        socket.listen(1)?;
    }
    Ok(socket)
}

fn connect(protocol: &str, address: &str) -> io::Result<()> {
    let address: SocketAddr = address.parse().unwrap();
    socket(protocol, address)?.connect(&address.into())
}
