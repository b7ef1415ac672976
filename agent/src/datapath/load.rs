//! Loads the programs around the pinned maps, and attaches them.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use aya::{
    Btf, Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Array, MapData},
    programs::{Program, ProgramError},
};
use aya_log::EbpfLogger;
use nix::sys::signal::{SigSet, SigmaskHow};
use ringfence_common::abi::{Answering, names, version};

use super::{
    answers::{self, Refused},
    error::{DatapathError, io_error},
    features,
    kernel_log::KernelLog,
    links::{self, HOOKS, Link, SOCKET},
    maps, offsets, pins,
};

/// The kernel programs, as `cargo xtask build` made them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("RINGFENCE_BPF_OBJECT"));
/// The program at the egress of devices.
const FRAME: &str = "ringfence_frame";
/// The optional program: it sees executables early.
const EXEC: &str = "exec";

/// Where and how large.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory below a bpffs that holds the pins of this agent.
    pub pin_dir: PathBuf,
    /// The guarded cgroup.
    pub cgroup_root: PathBuf,
    /// Bytes of the event ring, a power of two.
    pub events_buffer: u32,
    /// Entries of the flow map.
    pub flow_entries: u32,
    /// How refusals are answered.
    pub answering: Answering,
    /// The programs send debug messages.
    pub debug: bool,
}

impl Options {
    /// Directory of the pins of this ABI.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        pins::directory(&self.pin_dir, version::ABI)
    }
}

/// Programs that are loaded but not attached.
pub struct Loaded {
    ebpf: Ebpf,
    /// Whether [`SOCKET`] is loaded, or why it should be and is not.
    socket: Result<bool, DatapathError>,
}

/// Loads the programs; maps that are pinned are used, others are made and pinned.
///
/// # Errors
/// [`DatapathError`].
pub fn load(options: &Options) -> Result<Loaded, DatapathError> {
    let directory = options.directory();
    pins::make(&directory)?;
    let offsets = offsets::read(Path::new("/sys/kernel/btf/vmlinux"))?;
    let log_level = if options.debug { &u8::MAX } else { &0 };
    let mut loader = EbpfLoader::new();
    let _ = loader
        .verifier_log_level(VerifierLogLevel::STATS)
        .override_global(names::OFFSETS, &offsets, true)
        .override_global(names::ANSWERING, &options.answering, true)
        .override_global(aya_log::LEVEL, log_level, true)
        .map_max_entries(names::EVENTS, options.events_buffer)
        .map_max_entries(names::FLOWS, options.flow_entries);
    if options.answering.remote == 0 {
        // Nobody writes to it.
        let _ = loader.map_max_entries(names::SOURCES, 1);
    }
    for name in pins::maps() {
        let _ = loader.map_pin_path(name, directory.join(name));
    }
    let mut ebpf = loader.load(OBJECT)?;
    for hook in HOOKS {
        load_program(&mut ebpf, hook.name)?;
    }
    load_program(&mut ebpf, FRAME)?;
    let socket = if features::has_socket_lsm() {
        load_program(&mut ebpf, SOCKET.name).map(|()| true)
    } else {
        Ok(false)
    };
    Ok(Loaded { ebpf, socket })
}

impl Loaded {
    /// Attaches every hook to the guarded cgroup. When this returns they enforce; in a directory that is new none of
    /// them did before all were attached. Cgroups that were guarded instead go into `left`.
    ///
    /// # Errors
    /// [`DatapathError::Attach`], [`DatapathError::Cgroup`] or [`DatapathError::Pin`].
    pub fn attach(
        &self,
        options: &Options,
        left: &mut BTreeSet<u64>,
    ) -> Result<Vec<Link>, DatapathError> {
        let cgroup_error = |source| DatapathError::Cgroup {
            path: options.cgroup_root.clone(),
            source,
        };
        let cgroup = File::open(&options.cgroup_root).map_err(cgroup_error)?;
        let id = cgroup.metadata().map_err(cgroup_error)?.ino();
        let directory = options.directory().join(pins::LINKS);
        let socket = self.socket.as_ref().is_ok_and(|loaded| *loaded);
        // The replies of a datagram flow are known by what ingress has seen: before it, sendmsg would refuse them.
        let (late, early): (Vec<_>, Vec<_>) = HOOKS
            .iter()
            .partition(|hook| hook.name.starts_with("sendmsg"));
        let links: Result<Vec<Link>, DatapathError> = socket
            .then_some(&SOCKET)
            .into_iter()
            .chain(early)
            .chain(late)
            .map(|hook: &links::Hook| {
                let program = self.descriptor(hook.name)?;
                links::attach(
                    *hook,
                    program.as_fd(),
                    &cgroup,
                    id,
                    &options.cgroup_root,
                    &directory,
                    left,
                )
            })
            .collect();
        // Where the kernel refuses a hook, the others judge what they can.
        let armed = arm(&options.directory(), 1);
        let links = links?;
        armed?;
        Ok(links)
    }

    /// Why sockets that no other hook sees are not refused although the kernel has BPF LSM.
    #[must_use]
    pub fn unseen(&self) -> Option<&DatapathError> {
        self.socket.as_ref().err()
    }

    /// Attaches the optional tracepoint for as long as the agent lives; without it an executable is
    /// judged when it first connects.
    ///
    /// # Errors
    /// What the kernel said, as text.
    pub fn watch_executions(&mut self) -> Result<(), String> {
        load_program(&mut self.ebpf, EXEC).map_err(|error| error.to_string())?;
        match self.ebpf.program_mut(EXEC) {
            Some(Program::RawTracePoint(program)) => program
                .attach("sched_process_exec")
                .map(drop)
                .map_err(|error| error.to_string()),
            _ => Err(DatapathError::Missing(EXEC).to_string()),
        }
    }

    /// Opens the programs' debug messages.
    ///
    /// # Errors
    /// Why they can't be read.
    pub fn kernel_log(&mut self) -> Result<KernelLog, String> {
        let logger = EbpfLogger::init(&mut self.ebpf).map_err(|error| error.to_string())?;
        KernelLog::new(logger).map_err(|error| error.to_string())
    }

    /// The ring of refused packets that may be answered; there is one such reader.
    ///
    /// # Errors
    /// [`DatapathError::Map`] or [`DatapathError::Missing`].
    pub fn refused(&mut self) -> Result<Refused, DatapathError> {
        let map = self.ebpf.take_map(names::UNANSWERED);
        answers::ring(map.ok_or(DatapathError::Missing(names::UNANSWERED))?)
    }

    /// The program at the egress of devices.
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub fn frame(&self) -> Result<OwnedFd, DatapathError> {
        self.descriptor(FRAME)
    }

    fn descriptor(&self, name: &'static str) -> Result<OwnedFd, DatapathError> {
        let program = self
            .ebpf
            .program(name)
            .ok_or(DatapathError::Missing(name))?;
        let fd = program.fd().map_err(|error| DatapathError::Program {
            name,
            reason: error.to_string(),
        })?;
        fd.as_fd()
            .try_clone_to_owned()
            .map_err(|source| DatapathError::Pin {
                path: PathBuf::from(name),
                source,
            })
    }
}

/// Lets the programs refuse, all of them at one moment: until then a flow would be judged by what the others have not
/// seen. From then on they do, whoever attaches them again.
/// With 0 they refuse nothing more, at one moment too.
fn arm(directory: &Path, armed: u32) -> Result<(), DatapathError> {
    let mut map: Array<MapData, u32> = maps::open(directory, names::ARMED)?;
    map.set(0, armed, 0)
        .map_err(|error| DatapathError::map(names::ARMED)(io_error(error)))
}

/// Settings of sizes that have no effect, because the maps were made before with other sizes; one
/// sentence each.
///
/// # Errors
/// [`DatapathError::Map`].
pub fn other_sizes(options: &Options) -> Result<Vec<String>, DatapathError> {
    let directory = options.directory();
    let mut warnings = Vec::new();
    for (key, name, wanted, unit) in [
        (
            "events-buffer",
            names::EVENTS,
            options.events_buffer,
            "bytes",
        ),
        (
            "flow-entries",
            names::FLOWS,
            options.flow_entries,
            "entries",
        ),
    ] {
        let actual = maps::entries(&directory, name)?;
        if actual != wanted {
            warnings.push(format!(
                "`flows.{key}` is {wanted} {unit}, but the map in force has {actual}: pinned maps keep \
                 their sizes; to change it, stop the agent, run `ringfence detach` (nothing is enforced \
                 from then on) and start the agent again"
            ));
        }
    }
    Ok(warnings)
}

/// Removes the pins of agents with another ABI, and with them what they attached. The programs of this
/// agent are in force by then, so that nothing is open in between. The cgroups that were guarded by
/// them go into `left`.
///
/// # Errors
/// [`DatapathError::Pin`].
pub fn retire_others(
    options: &Options,
    left: &mut BTreeSet<u64>,
) -> Result<Vec<PathBuf>, DatapathError> {
    let pin_error = |path: &Path| {
        let path = path.to_path_buf();
        move |source| DatapathError::Pin { path, source }
    };
    let mut retired = Vec::new();
    for (version, path) in pins::versions(&options.pin_dir).map_err(pin_error(&options.pin_dir))? {
        if version != version::ABI {
            left.append(&mut links::cgroups_of(&path.join(pins::LINKS)));
            // Before ABI 10 there is no such map, and in this order nobody is judged by half of a policy.
            let _not_there = arm(&path, 0);
            for name in links::every().rev().map(|hook| hook.name) {
                let link = path.join(pins::LINKS).join(name);
                links::detach(&link).map_err(pin_error(&link))?;
            }
            fs::remove_dir_all(&path).map_err(pin_error(&path))?;
            retired.push(path);
        }
    }
    Ok(retired)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "aya knows many kinds of programs that Ringfence has not"
)]
fn load_program(ebpf: &mut Ebpf, name: &'static str) -> Result<(), DatapathError> {
    let program = ebpf.program_mut(name).ok_or(DatapathError::Missing(name))?;
    let result = without_signals(|| match program {
        Program::CgroupSkb(program) => Some(program.load()),
        Program::CgroupSock(program) => Some(program.load()),
        Program::CgroupSockAddr(program) => Some(program.load()),
        Program::SockOps(program) => Some(program.load()),
        Program::CgroupSockopt(program) => Some(program.load()),
        Program::SchedClassifier(program) => Some(program.load()),
        Program::RawTracePoint(program) => Some(program.load()),
        Program::LsmCgroup(program) => Some(
            Btf::from_sys_fs()
                .map_err(ProgramError::from)
                .and_then(|btf| program.load(SOCKET.name, &btf)),
        ),
        _ => None,
    });
    result
        .ok_or(DatapathError::Missing(name))?
        .map_err(|error| DatapathError::Program {
            name,
            reason: error.to_string(),
        })
}

/// Runs `work` while other threads take the signals: the verifier gives up (`EAGAIN`) when one is
/// pending for its caller (`do_check`, `kernel/bpf/verifier.c`).
fn without_signals<T>(work: impl FnOnce() -> T) -> T {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let result = work();
    if let Ok(before) = before {
        let _still_blocked = before.thread_set_mask();
    }
    result
}
