//! What the agent may do, who may ask it, and what it keeps to itself.

use std::{
    fs,
    io::Write as _,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, Output},
};

use ringfence_tests::{Agent, Options, Sandbox, program, scene};

use crate::common::{assert_allowed, assert_refused, three_tiers};

/// `CAP_NET_ADMIN`, `CAP_SYS_PTRACE`, `CAP_SYS_ADMIN`, `CAP_PERFMON`, `CAP_BPF`, `CAP_DAC_READ_SEARCH`.
const NEEDED: u64 = 1 << 12 | 1 << 19 | 1 << 21 | 1 << 38 | 1 << 39 | 1 << 2;
/// `CAP_NET_RAW`, to answer what is refused.
const SENDING: u64 = 1 << 13;
/// `nobody`.
const NOBODY: u32 = 65_534;

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{status}"))
        .trim_start_matches(':')
        .trim()
        .to_owned()
}

#[test]
fn the_agent_keeps_the_capabilities_it_needs_in_every_thread() {
    kept("capabilities", "", 0);
}

#[test]
fn an_agent_that_answers_refused_clients_keeps_raw_sockets_too() {
    kept(
        "capabilities-answers",
        "[refusal]\nremote = \"reset\"",
        SENDING,
    );
}

fn kept(name: &str, sections: &str, sending: u64) {
    scene(name, |sandbox| {
        let web = sandbox.actor("web");
        let options = Options {
            sections: sections.to_owned(),
            ..Options::default()
        };
        let mut agent = Agent::start_with(sandbox, &options, &three_tiers());
        let _ = assert_refused(&web, "127.0.0.1:81", &[]);
        let tasks = format!("/proc/{}/task", agent.daemon().pid());
        let mut threads = 0;
        for task in fs::read_dir(tasks).unwrap() {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            for (set, kept) in [
                ("CapEff", NEEDED | sending),
                ("CapPrm", NEEDED | sending),
                // With `no_new_privs` nothing is gained from it.
                ("CapBnd", NEEDED | SENDING),
            ] {
                let bits = u64::from_str_radix(&field(&status, set), 16).unwrap();
                assert_eq!(bits, kept, "{set}: {bits:x}\n{status}");
            }
            for set in ["CapInh", "CapAmb"] {
                assert_eq!(
                    u64::from_str_radix(&field(&status, set), 16),
                    Ok(0),
                    "{set}"
                );
            }
            assert_eq!(field(&status, "NoNewPrivs"), "1");
            threads += 1;
        }
        assert!(threads > 2, "{threads} threads");
    });
}

/// The command line as another user, with a copy of it that he may run.
fn as_user(sandbox: &Sandbox, agent: &Agent, uid: u32, arguments: &[&str]) -> Output {
    let copy = sandbox.files().join("ringfence-of-users");
    if !copy.exists() {
        let _bytes = fs::copy(program::product("ringfence"), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(copy);
    let _ = command
        .args(arguments)
        .arg("--socket")
        .arg(agent.socket())
        .uid(uid)
        .gid(uid);
    command.output().unwrap()
}

#[test]
fn nobody_but_root_reads_or_changes_anything() {
    scene("unprivileged", |sandbox| {
        let web = sandbox.actor("web");
        let agent = Agent::start(sandbox, &three_tiers());
        // The way to the socket is open, so that the socket itself decides.
        for dir in [sandbox.files(), agent.socket().parent().unwrap()] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let socket = fs::metadata(agent.socket()).unwrap();
        assert_eq!((socket.mode() & 0o777, socket.uid()), (0o600, 0));
        let empty = sandbox.files().join("empty.toml");
        fs::write(&empty, "").unwrap();
        fs::set_permissions(&empty, fs::Permissions::from_mode(0o644)).unwrap();
        let empty = empty.to_str().unwrap();
        let questions: [&[&str]; 8] = [
            &["status"],
            &["observe"],
            &["policy", "list"],
            &["workload", "list"],
            &["policy", "apply", "--prune", empty],
            &["policy", "apply", "--dry-run", empty],
            &["policy", "confirm"],
            &["policy", "rollback"],
        ];
        for question in questions {
            let output = as_user(sandbox, &agent, NOBODY, question);
            assert_eq!(output.status.code(), Some(3), "{question:?}: {output:?}");
            assert!(output.stdout.is_empty(), "{question:?}: {output:?}");
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(text.contains("as root"), "{question:?}: {text}");
        }
        // Also where somebody has opened the socket.
        fs::set_permissions(agent.socket(), fs::Permissions::from_mode(0o666)).unwrap();
        for question in questions {
            let output = as_user(sandbox, &agent, NOBODY, question);
            assert_eq!(output.status.code(), Some(1), "{question:?}: {output:?}");
            assert!(output.stdout.is_empty(), "{question:?}: {output:?}");
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                text.contains(&format!("user {NOBODY} may not")),
                "{question:?}: {text}"
            );
        }
        assert_eq!(agent.status().generation, 1);
        let _ = assert_refused(&web, "127.0.0.1:81", &[]);
        let root = as_user(sandbox, &agent, 0, &["status"]);
        assert!(root.status.success(), "{root:?}");
        // What is kept on disk is nobody's either.
        let state = agent.policy_dir().parent().unwrap().join("state");
        for entry in fs::read_dir(&state).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::metadata(&path).unwrap().mode() & 0o077;
            assert_eq!(mode, 0, "{}: {mode:o}", path.display());
        }
    });
}

/// Whether a file or the memory that a process shows of itself holds a text.
fn holds(path: &Path, text: &str) -> bool {
    let bytes = fs::read(path).unwrap();
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn a_key_is_in_no_log_record_argument_or_answer() {
    scene("secrets", |sandbox| {
        let web = sandbox.actor("web");
        // A key and a certificate that fit, and a controller that is not there: every failure is logged.
        let certified = rcgen::generate_simple_self_signed(vec!["host".to_owned()]).unwrap();
        let key = certified.signing_key.serialize_pem();
        let dir = sandbox.files().join("agent");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("key.pem"), &key).unwrap();
        fs::write(dir.join("cert.pem"), certified.cert.pem()).unwrap();
        let nobody = ringfence_tests::agent::free_address();
        let options = Options {
            sections: format!(
                "[controller]\nendpoints = [\"https://{nobody}\"]\nca = \"cert.pem\"\ncert = \"cert.pem\"\nkey = \"key.pem\"\n"
            ),
            ..Options::default()
        };
        let mut agent = Agent::start_with(sandbox, &options, &three_tiers());
        ringfence_tests::poll::until("the controller is tried in vain", || {
            !agent.status().controller_error.is_empty()
        });
        let _ = assert_refused(&web, "127.0.0.1:81", &[]);
        let secret = key.lines().nth(1).unwrap().to_owned();
        assert!(secret.len() > 40, "{secret}");
        let process = Path::new("/proc").join(agent.daemon().pid().to_string());
        for name in ["cmdline", "environ", "comm"] {
            assert!(!holds(&process.join(name), &secret), "{name}");
        }
        let flows = agent.log();
        assert!(!format!("{flows:?}").contains(&secret), "flow records");
        assert!(!format!("{:?}", agent.status()).contains(&secret), "status");
        assert!(!agent.daemon().log().contains(&secret), "log");
        let state = dir.join("state");
        for entry in fs::read_dir(state).unwrap() {
            assert!(!holds(&entry.unwrap().path(), &secret), "state");
        }

        // A key that is none is told without it.
        let broken = key.replace("BEGIN PRIVATE KEY", "BEGIN SOMETHING");
        assert_ne!(broken, key);
        fs::write(dir.join("key.pem"), &broken).unwrap();
        agent.kill();
        let check = Command::new(program::product("ringfence"))
            .args(["agent", "--check", "--config"])
            .arg(agent.config())
            .output()
            .unwrap();
        let said = [check.stdout, check.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(check.status.code(), Some(1), "{said}");
        assert!(
            said.contains("private key") && !said.contains(&secret),
            "{said}"
        );
        let _ = assert_refused(&web, "127.0.0.1:81", &[]);
    });
}

#[test]
fn a_flood_of_clients_does_not_stop_the_policy_loop() {
    scene("client-flood", |sandbox| {
        let web = sandbox.actor("web");
        let open = three_tiers().replace(
            "to = [{ workload = \"api\" }]\nports = [\"8080/tcp\"]",
            "ports = [\"81/tcp\"]",
        );
        let mut agent = Agent::start(sandbox, &three_tiers());
        let process = Path::new("/proc").join(agent.daemon().pid().to_string());
        let resident = || {
            let status = fs::read_to_string(process.join("status")).unwrap();
            let kib = field(&status, "VmRSS");
            kib.trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        let descriptors = || fs::read_dir(process.join("fd")).unwrap().count();
        let before = (resident(), descriptors());
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let mut flood = Vec::new();
        for round in 0..3_000_u32 {
            let Ok(mut stream) = UnixStream::connect(agent.socket()) else {
                continue;
            };
            // Silent, half of a greeting, all of it and nothing more, or no HTTP/2 at all.
            let _closed = match round % 4 {
                0 => Ok(()),
                1 => stream.write_all(&preface[..10]),
                2 => stream.write_all(preface),
                _ => stream.write_all(&[0xff; 4096]),
            };
            flood.push(stream);
            if flood.len() > 500 {
                flood.clear();
            }
            if round % 1_000 == 500 {
                // The policy changes all the same.
                let text = if round % 2_000 == 500 {
                    &open
                } else {
                    &three_tiers()
                };
                agent.set_policy(text);
            }
        }
        let _ = assert_allowed(&web, "127.0.0.1:81", &[]);
        // What a client can hold is bounded by places, not by how often it comes.
        ringfence_tests::poll::until("the flood holds its places and no more", || {
            descriptors() <= before.1 + 70
        });
        assert!(
            resident() <= before.0 + 64 * 1024,
            "{before:?} {} KiB",
            resident()
        );
        drop(flood);
        ringfence_tests::poll::until("the descriptors are free again", || {
            descriptors() <= before.1 + 8
        });
        agent.assert_counters();
    });
}
