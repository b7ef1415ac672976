//! nginx under wrk and redis-server under redis-benchmark, started for the bench on ports of its own.

use std::{
    ffi::{OsStr, OsString},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use ringfence_tests::poll::until;

use crate::{
    process::{Place, Server, check},
    stage::{Family, Stage, Way},
};

const HTTP: u16 = 7080;
const REDIS: u16 = 7379;
/// Clients at a time.
const CLIENTS: &str = "16";
/// Requests of one sample.
const REQUESTS: &str = "6000";

/// Whether the programs are there, else what is missing and how it comes.
pub fn missing(http: bool) -> Option<String> {
    let names = if http {
        ["nginx", "wrk"]
    } else {
        ["redis-server", "redis-benchmark"]
    };
    names.into_iter().find(|name| find(name).is_none()).map(|name| {
        format!("{name} is not there: `cargo xtask bench` fetches it on Debian, elsewhere install it")
    })
}

/// Starts what serves a scenario on a stage.
pub fn start(stage: &Stage, http: bool) -> Server {
    let dir = stage
        .sandbox
        .files()
        .join(if http { "nginx" } else { "redis" });
    fs::create_dir_all(&dir).unwrap();
    let arguments: Vec<OsString> = if http {
        let config = dir.join("nginx.conf");
        fs::write(&config, nginx(&dir)).unwrap();
        vec!["-p".into(), dir.clone().into(), "-c".into(), config.into()]
    } else {
        let text = format!(
            "--port {REDIS} --bind 0.0.0.0 :: --protected-mode no --save  --appendonly no --daemonize no --dir {}",
            dir.display()
        );
        text.split(' ').map(OsString::from).collect()
    };
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cgroup = stage.sandbox.cgroup("server");
    let netns = stage.sandbox.namespace().path();
    let place = Place {
        cgroup: &cgroup,
        netns: &netns,
        cpu: usize::from(cpus > 1),
    };
    let program = find(if http { "nginx" } else { "redis-server" }).unwrap();
    let log = fs::File::create(dir.join("log")).unwrap();
    let child = place
        .command(program.as_os_str(), &arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let server = Server(child);
    let port = if http { HTTP } else { REDIS };
    until("a server listens", || listens(&netns, port));
    server
}

/// Whether both families have a listener on `port` in a namespace.
fn listens(netns: &Path, port: u16) -> bool {
    let process = netns.parent().and_then(Path::parent).unwrap();
    let wanted = format!(":{port:04X} ");
    ["tcp", "tcp6"].iter().all(|table| {
        let text = fs::read_to_string(process.join("net").join(table)).unwrap_or_default();
        text.lines()
            .any(|line| line.contains(&wanted) && line.contains(" 0A "))
    })
}

/// Requests a second, each on a connection of its own.
pub fn http(stage: &Stage, way: Way, family: Family) -> f64 {
    let url = format!("http://{}/", way.address(family, HTTP));
    let arguments = [
        "--threads",
        "1",
        "--connections",
        CLIENTS,
        "--duration",
        "1",
        "--header",
        "Connection: close",
        &url,
    ];
    let text = client(stage, way, "wrk", &arguments);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"));
    let failed = text.contains("Socket errors") || text.contains("Non-2xx");
    assert!(!failed, "wrk: {text}");
    line.and_then(|text| text.trim().parse().ok())
        .unwrap_or_else(|| panic!("wrk: {text}"))
}

/// The same of `GET`.
pub fn redis(stage: &Stage, way: Way, family: Family) -> f64 {
    let address: SocketAddr = way.address(family, REDIS).parse().unwrap();
    let host = address.ip().to_string();
    let port = REDIS.to_string();
    let arguments = [
        "-h", &host, "-p", &port, "-c", CLIENTS, "-n", REQUESTS, "-k", "0", "-t", "get", "--csv",
    ];
    let text = client(stage, way, "redis-benchmark", &arguments);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("\"GET\",\""));
    line.and_then(|line| line.split('"').next()?.parse().ok())
        .unwrap_or_else(|| panic!("redis-benchmark: {text}"))
}

fn client(stage: &Stage, way: Way, name: &str, arguments: &[&str]) -> String {
    check();
    let cgroup = stage.sandbox.cgroup("client");
    let netns = match way {
        Way::Loopback => stage.sandbox.namespace().path(),
        Way::Veth => stage.namespace.path(),
    };
    let place = Place {
        cgroup: &cgroup,
        netns: &netns,
        cpu: 0,
    };
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    let program = find(name).unwrap();
    let output = place
        .command(OsStr::new(&program), &arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    check();
    assert!(output.status.success(), "{name}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// No files of the machine, no modules, nothing written but below `dir`.
fn nginx(dir: &Path) -> String {
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", dir.display()))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\nuser root;\npid {0}/pid;\nerror_log {0}/errors;\n\
         events {{ worker_connections 4096; }}\nhttp {{\naccess_log off;\n{paths}\
         server {{ listen 0.0.0.0:{HTTP} backlog=4096; listen [::]:{HTTP} ipv6only=on backlog=4096;\n\
         location / {{ return 200 \"hello\"; }} }}\n}}\n",
        dir.display()
    )
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
