//! Programs of others: what somebody else loads, attaches beside Ringfence's, and detaches.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::libc;

/// Commands of bpf(2) (`enum bpf_cmd`).
const PROG_LOAD: i64 = 5;
const OBJ_GET: i64 = 7;
const PROG_ATTACH: i64 = 8;
const PROG_DETACH: i64 = 9;
const LINK_CREATE: i64 = 28;
const LINK_DETACH: i64 = 34;

/// `BPF_F_ALLOW_MULTI`: others may attach beside it and below.
pub const ALLOW_MULTI: u32 = 2;
/// Nobody may.
pub const EXCLUSIVE: u32 = 0;

/// Where a program is attached, and what for one it is (`enum bpf_attach_type`, `enum bpf_prog_type`).
#[derive(Clone, Copy, Debug)]
pub struct Place {
    attach_type: u32,
    program_type: u32,
}

/// `cgroup_skb/ingress`.
pub const INGRESS: Place = Place {
    attach_type: 0,
    program_type: 8,
};
/// `cgroup_skb/egress`.
pub const EGRESS: Place = Place {
    attach_type: 1,
    program_type: 8,
};
/// `cgroup/connect4`.
pub const CONNECT4: Place = Place {
    attach_type: 10,
    program_type: 18,
};

/// `cgroup/setsockopt`.
pub const SETSOCKOPT: Place = Place {
    attach_type: 22,
    program_type: 25,
};

/// A loaded program.
#[derive(Debug)]
pub struct Foreign {
    program: File,
    place: Place,
}

impl Foreign {
    /// Loads one for a place that lets everything pass.
    #[track_caller]
    #[must_use]
    pub fn load(place: Place) -> Self {
        // `mov r0, 1` and `exit`.
        Self::load_code(place, &[0x0000_0001_0000_00b7, 0x0000_0000_0000_0095])
    }

    /// Loads instructions for a place.
    #[track_caller]
    #[must_use]
    pub fn load_code(place: Place, code: &[u64]) -> Self {
        let license = c"GPL";
        // The first 72 bytes of the attributes, `expected_attach_type` last.
        let mut attributes = [0; 9];
        attributes[0] = u64::from(place.program_type) | (code.len() as u64) << 32;
        attributes[1] = code.as_ptr() as u64;
        attributes[2] = license.as_ptr() as u64;
        attributes[8] = u64::from(place.attach_type) << 32;
        let program = bpf(PROG_LOAD, &attributes).unwrap();
        Self {
            program: owned(program),
            place,
        }
    }

    /// Attaches it for as long as the answer lives.
    #[track_caller]
    #[must_use]
    pub fn link(&self, cgroup: &Path) -> File {
        let cgroup = File::open(cgroup).unwrap();
        let attributes = [
            low(&self.program) | low(&cgroup) << 32,
            u64::from(self.place.attach_type),
        ];
        owned(bpf(LINK_CREATE, &attributes).unwrap())
    }

    /// Attaches it in the old way, until it is detached or the cgroup goes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn attach(&self, cgroup: &Path, flags: u32) -> io::Result<()> {
        let cgroup = File::open(cgroup)?;
        bpf(PROG_ATTACH, &self.attributes(&cgroup, flags)).map(drop)
    }

    /// Detaches it.
    #[track_caller]
    pub fn detach(&self, cgroup: &Path) {
        let cgroup = File::open(cgroup).unwrap();
        let _done = bpf(PROG_DETACH, &self.attributes(&cgroup, 0)).unwrap();
    }

    fn attributes(&self, cgroup: &File, flags: u32) -> [u64; 2] {
        [
            low(cgroup) | low(&self.program) << 32,
            u64::from(self.place.attach_type) | u64::from(flags) << 32,
        ]
    }
}

/// Detaches the link that is pinned at `pin`; the pin stays.
///
/// # Errors
/// The kernel's.
pub fn detach_link(pin: &Path) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let link = owned(bpf(OBJ_GET, &[path.as_ptr() as u64, 0])?);
    bpf(LINK_DETACH, &[low(&link)]).map(drop)
}

fn low(file: &File) -> u64 {
    u64::from(file.as_raw_fd().cast_unsigned())
}

fn owned(fd: i32) -> File {
    // SAFETY: the kernel has answered with a new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }.into()
}

fn bpf(command: i64, attributes: &[u64]) -> io::Result<i32> {
    // SAFETY: the attributes are integers, some of them addresses of what the caller keeps across the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            std::mem::size_of_val(attributes),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
