//! New executables without end: each start is of a file whose change time is new.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use ringfence_tests::Outcome;

use super::{Result, at, done};

/// What the starts stop for after, if nobody ends them.
const LONGEST: Duration = Duration::from_secs(120);

/// Files that are started over and over.
#[derive(clap::Args)]
pub struct Swarm {
    /// Where the files are made
    directory: PathBuf,
    /// How many are started at a time
    #[arg(long, default_value_t = 4)]
    threads: usize,
}

/// Says that it has begun, and after a line on standard input how many were started (as bytes).
pub fn swarm(swarm: &Swarm, begun: impl FnOnce(&Outcome)) -> Result<Outcome> {
    let (ended, started) = (AtomicBool::new(false), AtomicU64::new(0));
    let files: Vec<PathBuf> = (0..swarm.threads)
        .map(|number| swarm.directory.join(format!("swarm{number}")))
        .collect();
    for file in &files {
        program(file).map_err(at("file"))?;
    }
    thread::scope(|scope| {
        let threads: Vec<_> = files
            .iter()
            .map(|file| scope.spawn(|| start(file, &ended, &started)))
            .collect();
        begun(&done("ready"));
        let read = io::stdin().read_line(&mut String::new());
        ended.store(true, Ordering::Relaxed);
        for thread in threads {
            let joined = thread.join();
            joined
                .unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
                .map_err(at("start"))?;
        }
        let _end = read.map_err(at("stdin"))?;
        let mut outcome = done("done");
        outcome.sent = started.load(Ordering::Relaxed);
        Ok(outcome)
    })
}

fn start(file: &Path, ended: &AtomicBool, started: &AtomicU64) -> io::Result<()> {
    let begun = Instant::now();
    let mut mode = 0o700;
    while !ended.load(Ordering::Relaxed) && begun.elapsed() < LONGEST {
        mode ^= 1;
        fs::set_permissions(file, Permissions::from_mode(mode))?;
        let _status = Command::new(file).status()?;
        let _number = started.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// The smallest program that calls 127.0.0.1:81, waits for nothing and ends.
#[cfg(target_arch = "x86_64")]
fn program(file: &Path) -> io::Result<()> {
    const BASE: u64 = 0x0040_0000;
    const HEADERS: u64 = 64 + 56;
    let code: &[u8] = &[
        0xbf, 2, 0, 0, 0, // mov edi, AF_INET
        0xbe, 1, 8, 0, 0, // mov esi, SOCK_STREAM | SOCK_NONBLOCK
        0x31, 0xd2, // xor edx, edx
        0xb8, 41, 0, 0, 0, // mov eax, socket
        0x0f, 0x05, // syscall
        0x89, 0xc7, // mov edi, eax
        0x48, 0x8d, 0x35, 21, 0, 0, 0, // lea rsi, [the address]
        0xba, 16, 0, 0, 0, // mov edx, 16
        0xb8, 42, 0, 0, 0, // mov eax, connect
        0x0f, 0x05, // syscall
        0x31, 0xff, // xor edi, edi
        0xb8, 60, 0, 0, 0, // mov eax, exit
        0x0f, 0x05, // syscall
        2, 0, 0, 81, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let size = HEADERS + u64::try_from(code.len()).unwrap_or(0);
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for word in [BASE + HEADERS, 64, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // PT_LOAD, readable and executable.
    bytes.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, BASE, BASE, size, size, 4096] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(code);
    fs::write(file, bytes)?;
    fs::set_permissions(file, Permissions::from_mode(0o700))
}

#[cfg(not(target_arch = "x86_64"))]
fn program(file: &Path) -> io::Result<()> {
    fs::copy("/bin/true", file).map(drop)
}
