//! Processes that are born into their cgroup (`CLONE_INTO_CGROUP`): moving one there afterwards waits for
//! every processor.

use std::{
    env,
    ffi::CString,
    fs::File,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr::null,
};

use nix::{errno::Errno, libc, unistd::Pid};

/// `CLONE_INTO_CGROUP` (`include/uapi/linux/sched.h`).
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// Starts `call` in a process of `cgroup`.
pub fn start_in(cgroup: &Path, index: usize, answers: &OwnedFd) -> Pid {
    let cgroup = File::open(cgroup).unwrap();
    let program = CString::new(env::current_exe().unwrap().as_os_str().as_bytes()).unwrap();
    let words = [
        program.clone(),
        c"call".to_owned(),
        CString::new(index.to_string()).unwrap(),
        CString::new(answers.as_raw_fd().to_string()).unwrap(),
    ];
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(null());
    // SAFETY: a structure of integers.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = INTO_CGROUP;
    arguments.exit_signal = u64::try_from(libc::SIGCHLD).unwrap();
    arguments.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap();
    // SAFETY: as `fork`; the child makes two system calls with what was prepared before.
    let child = unsafe {
        let child = libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of_val(&arguments),
        );
        if child == 0 {
            let _failed = libc::execv(program.as_ptr(), pointers.as_ptr());
            libc::_exit(127);
        }
        child
    };
    let child = Errno::result(child).unwrap();
    Pid::from_raw(i32::try_from(child).unwrap())
}
