//! The steps of a daemon: each system call by which it changes what outlives it waits for the test.
//!
//! The test decides at each step whether the daemon goes on, is killed before the kernel has begun the call,
//! or gets an error instead; by taking its time it stops the daemon there. Without a plan every step goes on.

use std::{
    ffi::OsString,
    io::IoSliceMut,
    mem,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::{
        signal::{Signal, kill},
        socket::{
            ControlMessageOwned, MsgFlags, UnixCredentials, getsockopt, recvmsg,
            sockopt::PeerCredentials,
        },
    },
    unistd::Pid,
};

/// The calls that are steps, with their names.
pub const CALLS: &[(i64, &str)] = &[
    (libc::SYS_bpf, "bpf"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_renameat, "rename"),
    (libc::SYS_renameat2, "rename"),
    (libc::SYS_unlinkat, "unlink"),
    (libc::SYS_mkdirat, "mkdir"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rmdir, "rmdir"),
];

/// Between two looks whether the test has ended.
const TICK: Duration = Duration::from_millis(50);

/// A step that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// From 1, since the plan was made.
    pub number: u64,
    /// Name of the call.
    pub call: &'static str,
    /// Its first argument; of `bpf` the command.
    pub argument: u64,
}

/// What becomes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The call is made.
    Go,
    /// The daemon is killed.
    Kill,
    /// The call is not made and fails with this error.
    Fail(Errno),
}

type Plan = Box<dyn FnMut(Step) -> Act + Send>;

struct Shared {
    plan: Mutex<Option<Plan>>,
    taken: AtomicU64,
}

/// Whoever decides about steps. Serves one daemon after the other.
pub struct Steps {
    socket: PathBuf,
    shared: Arc<Shared>,
}

impl Steps {
    /// One whose socket is `name` in `dir`.
    #[must_use]
    pub fn new(dir: &Path, name: &str) -> Self {
        let socket = dir.join(name);
        let listener = UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::new(Shared {
            plan: Mutex::new(None),
            taken: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&shared);
        let _server = thread::spawn(move || serve(&listener, &weak));
        Self { socket, shared }
    }

    /// How the traffic tool starts a daemon under these steps.
    #[must_use]
    pub fn launcher(&self) -> Vec<OsString> {
        vec!["stepped".into(), self.socket.clone().into()]
    }

    /// Decides about steps from now on, and counts them anew.
    pub fn plan(&self, plan: impl FnMut(Step) -> Act + Send + 'static) {
        let mut current = self.shared.plan.lock().unwrap();
        self.shared.taken.store(0, Ordering::Relaxed);
        *current = Some(Box::new(plan));
    }

    /// Every step goes on, and they are counted anew.
    pub fn all_go(&self) {
        self.plan(|_| Act::Go);
    }

    /// Steps since the plan was made, with one that waits.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.shared.taken.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn decide(&self, call: &'static str, argument: u64) -> Act {
        let mut plan = self.plan.lock().unwrap();
        let number = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        let step = Step {
            number,
            call,
            argument,
        };
        plan.as_mut().map_or(Act::Go, |plan| plan(step))
    }
}

fn serve(listener: &UnixListener, shared: &Weak<Shared>) {
    while shared.strong_count() > 0 {
        match listener.accept() {
            Ok((stream, _)) => {
                let shared = shared.clone();
                let _daemon = thread::spawn(move || {
                    if let Some((listener, pid)) = receive(&stream) {
                        follow(&listener, pid, &shared);
                    }
                });
            }
            Err(_) => thread::sleep(TICK),
        }
    }
}

/// The listener that a daemon hands over, and who it is.
fn receive(stream: &UnixStream) -> Option<(OwnedFd, Pid)> {
    stream.set_nonblocking(false).ok()?;
    let peer: UnixCredentials = getsockopt(stream, PeerCredentials).ok()?;
    let mut buffer = [0; 1];
    let mut data = [IoSliceMut::new(&mut buffer)];
    let mut space = cmsg_space!(RawFd);
    let message = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut data,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )
    .ok()?;
    let listener = message.cmsgs().ok()?.find_map(|message| {
        let ControlMessageOwned::ScmRights(fds) = message else {
            return None;
        };
        fds.first().copied()
    })?;
    // SAFETY: the message brought a new descriptor that nobody else owns.
    let listener = unsafe { OwnedFd::from_raw_fd(listener) };
    Some((listener, Pid::from_raw(peer.pid())))
}

/// Until the daemon has ended, also when the test has done so before: a call that nobody decides about fails
/// as none does in earnest.
fn follow(listener: &OwnedFd, pid: Pid, shared: &Weak<Shared>) {
    loop {
        let mut ready = libc::pollfd {
            fd: listener.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one such structure.
        let polled = unsafe { libc::poll(&raw mut ready, 1, -1) };
        if ready.revents & libc::POLLHUP != 0 {
            return;
        }
        if polled < 0 || ready.revents & libc::POLLIN == 0 {
            continue;
        }
        // SAFETY: a structure of integers.
        let mut held: libc::seccomp_notif = unsafe { mem::zeroed() };
        // SAFETY: the kernel writes one such structure.
        let received = unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_RECV,
                &raw mut held,
            )
        };
        if received < 0 {
            continue;
        }
        let number = i64::from(held.data.nr);
        let name = CALLS.iter().find(|(call, _)| *call == number);
        let act = shared.upgrade().map_or(Act::Go, |shared| {
            shared.decide(name.map_or("?", |(_, name)| name), held.data.args[0])
        });
        answer(listener, pid, &held, act);
    }
}

fn answer(listener: &OwnedFd, pid: Pid, held: &libc::seccomp_notif, act: Act) {
    let (error, flags) = match act {
        Act::Go => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE),
        Act::Fail(error) => (-(error as i32), 0),
        Act::Kill => {
            let _ended_before = kill(pid, Signal::SIGKILL);
            return;
        }
    };
    let response = libc::seccomp_notif_resp {
        id: held.id,
        val: 0,
        error,
        flags: u32::try_from(flags).unwrap_or_default(),
    };
    // SAFETY: the kernel reads one such structure. It fails where the caller was killed meanwhile.
    let _told = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw const response,
        )
    };
}
