//! One file per hook; each maps its verdict to the kernel's return code in one `match`.

mod bind;
mod connect;
mod exec;
mod sendmsg;
mod skb;
mod sock_create;
mod sock_ops;
mod sock_release;

/// A socket call is refused with EPERM or goes on.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Allow,
    Refuse,
}

impl Call {
    /// Return code of `cgroup/sock_create`, bind, connect and sendmsg programs.
    #[inline(always)]
    const fn code(self) -> i32 {
        match self {
            Self::Allow => 1,
            Self::Refuse => 0,
        }
    }
}
