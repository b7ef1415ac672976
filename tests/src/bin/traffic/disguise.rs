//! Ways to run a program, or to change one, that an identity must see through.

use std::{
    ffi::{CString, OsString},
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::Path,
    process::exit,
    ptr::{null_mut, read_volatile, write_volatile},
    thread,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    libc,
    sys::{
        memfd::{MFdFlags, memfd_create},
        prctl::set_pdeathsig,
        ptrace,
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, execve, fexecve, fork},
};
use ringfence_tests::Outcome;

use super::{Failed, Result, at, become_program, client, done};

/// Bytes of a page, or less.
const PAGE: usize = 4096;

/// What a file in memory is sealed against (`F_ADD_SEALS`, `fcntl(2)`).
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Seal {
    /// Another size.
    Size,
    /// Writing, but through mappings that there are.
    FutureWrite,
    /// All writing.
    Write,
}

impl Seal {
    const fn flags(self) -> SealFlag {
        match self {
            Self::Size => SealFlag::F_SEAL_GROW.union(SealFlag::F_SEAL_SHRINK),
            Self::FutureWrite => SealFlag::F_SEAL_FUTURE_WRITE,
            Self::Write => SealFlag::F_SEAL_WRITE,
        }
    }
}

/// Becomes a copy of a program that lies in memory alone.
pub fn from_memory(program: &[OsString], seal: Option<Seal>, by_path: bool) -> Result<Outcome> {
    set_pdeathsig(Signal::SIGKILL).map_err(at("prctl"))?;
    let text = |word: &OsString| CString::new(word.as_bytes()).map_err(at("exec"));
    let words = program.iter().map(text).collect::<Result<Vec<_>>>()?;
    let [path, ..] = program else {
        return Err(Failed("exec", io::ErrorKind::InvalidInput.into()));
    };
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memory = memfd_create(c"program", flags).map_err(at("memfd"))?;
    let mut file = fs::File::from(memory);
    let bytes = fs::read(path).map_err(at("memfd"))?;
    file.write_all(&bytes).map_err(at("memfd"))?;
    if let Some(seal) = seal {
        let _zero = fcntl(&file, FcntlArg::F_ADD_SEALS(seal.flags())).map_err(at("seal"))?;
    }
    let read =
        fs::File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(at("memfd"))?;
    drop(file);
    let environment: [CString; 0] = [];
    let Err(error) = if by_path {
        let path = CString::new(format!("/proc/self/fd/{}", read.as_raw_fd()));
        execve(&path.map_err(at("exec"))?, &words, &environment)
    } else {
        fexecve(&read, &words, &environment)
    };
    Err(Failed("exec", error.into()))
}

/// Changes the last byte of a file through a mapping of which every page was read before: on a file
/// system without writeback that leaves the file's times as they were.
pub fn alter_by_mapping(path: &Path) -> Result<Outcome> {
    let (bytes, length) = map(path)?;
    // SAFETY: all offsets are within the mapping, which ends here.
    unsafe {
        for offset in (0..length).step_by(PAGE) {
            let _byte = read_volatile(bytes.add(offset));
        }
        let last = bytes.add(length - 1);
        write_volatile(last, read_volatile(last) ^ 1);
        let _unmapped = libc::munmap(bytes.cast(), length);
    }
    Ok(done("altered"))
}

/// Writes the last byte of a file as it is through a mapping, says so, and changes it after a line on standard input: until
/// it is written back, that leaves the file's times as they were.
pub fn alter_when_told(path: &Path, mapped: impl FnOnce(&Outcome)) -> Result<Outcome> {
    let (bytes, length) = map(path)?;
    // SAFETY: the offset is within the mapping.
    let last = unsafe { bytes.add(length - 1) };
    // SAFETY: the mapping is readable and writable, and ends below.
    unsafe { write_volatile(last, read_volatile(last)) };
    mapped(&done("mapped"));
    let _told = io::stdin()
        .read_line(&mut String::new())
        .map_err(at("stdin"))?;
    // SAFETY: as above; nothing refers to the mapping afterwards.
    unsafe {
        write_volatile(last, read_volatile(last) ^ 1);
        let _unmapped = libc::munmap(bytes.cast(), length);
    }
    Ok(done("altered"))
}

fn map(path: &Path) -> Result<(*mut u8, usize)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(at("open"))?;
    let length = usize::try_from(file.metadata().map_err(at("open"))?.size()).unwrap_or(0);
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping of the whole file; nothing else refers to it.
    let map = unsafe {
        libc::mmap(
            null_mut(),
            length,
            access,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if map == libc::MAP_FAILED || length == 0 {
        return Err(Failed("map", io::Error::last_os_error()));
    }
    Ok((map.cast(), length))
}

/// Calls once the first thread has ended, says what came of it, and ends the process.
pub fn headless(
    call: client::Call,
    print: impl FnOnce(&Outcome) + Send + 'static,
) -> Result<Outcome> {
    let _other = thread::Builder::new()
        .spawn(move || {
            while fs::read_link("/proc/self/exe").is_ok() {
                thread::sleep(Duration::from_millis(1));
            }
            print(&client::call(&call));
            exit(0);
        })
        .map_err(at("thread"))?;
    // SAFETY: ends this thread alone; the other one uses nothing that is on its stack.
    let _never = unsafe { libc::syscall(libc::SYS_exit, 0) };
    Err(Failed("exit", io::Error::last_os_error()))
}

/// Runs a program whose every system call this process could change, to its end; the program answers.
pub fn traced(program: &[OsString]) -> Result<Outcome> {
    // SAFETY: this thread is the only one, so the child finds no lock taken.
    match unsafe { fork() }.map_err(at("fork"))? {
        ForkResult::Child => {
            ptrace::traceme().map_err(at("ptrace"))?;
            become_program(program)
        }
        ForkResult::Parent { child } => loop {
            let status = waitpid(child, None).map_err(at("ptrace"))?;
            if let WaitStatus::Exited(_, code) = status {
                exit(code);
            }
            let WaitStatus::Stopped(_, signal) = status else {
                return Err(Failed("ptrace", io::ErrorKind::Other.into()));
            };
            // The stop of `exec` itself is not the program's.
            let passed_on = (signal != Signal::SIGTRAP).then_some(signal);
            ptrace::cont(child, passed_on).map_err(at("ptrace"))?;
        },
    }
}
