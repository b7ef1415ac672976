//! A process that does what its standard input says, one socket call a line, and answers each with a
//! line: scenes about who owns a socket are lists of such lines, and so are attempts to get round a policy.
//!
//! Sockets have the descriptor numbers that the script names, and stay open over `exec`. `fork` and
//! `exec` go on with the same script: the answer comes from the new process or program.

mod calls;
pub mod forge;
mod race;
mod raw;
mod ring;
mod tricks;

use std::{
    fs::{self, File},
    io::{self, IoSlice, IoSliceMut},
    net::SocketAddr,
    os::{
        fd::{AsRawFd as _, IntoRawFd as _, RawFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Command as Process, exit},
    str::FromStr,
    thread,
};

use nix::{
    cmsg_space,
    sched::{CloneFlags, setns},
    sys::{
        socket::{
            AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown,
            SockFlag, SockType, SockaddrStorage, UnixAddr, accept, bind, connect, listen, recv,
            recvmsg, send, sendmsg, sendto, setsockopt, shutdown, socket,
            sockopt::{ReceiveTimeout, ReuseAddr, SendTimeout},
        },
        time::TimeVal,
    },
    unistd::close,
};
use raw::borrowed;
use ringfence_tests::Outcome;

use super::{Failed, Result, at, done, failure, print};

/// Longest wait of a socket call, seconds.
const PATIENCE: i64 = 5;
/// Descriptor of the mailbox for passed sockets.
const MAILBOX: RawFd = 99;

/// Says that it is ready and follows the script to its end.
pub fn play() -> Result<Outcome> {
    follow(&done("ready"))
}

fn follow(first: &Outcome) -> Result<Outcome> {
    print(first);
    loop {
        let mut line = String::new();
        if io::stdin().read_line(&mut line).map_err(at("script"))? == 0 {
            return Ok(done("end"));
        }
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        print(&perform(&words).unwrap_or_else(|failed| failure(&failed)));
    }
}

fn perform(words: &[&str]) -> Result<Outcome> {
    match *words {
        ["socket", kind, fd] => make(kind, number(fd)?),
        ["dup", fd, new] => place(duplicate(number(fd)?)?, number(new)?, "dup"),
        ["bind", fd, address] => {
            // Scenes follow each other on one port.
            setsockopt(&borrowed(number(fd)?), ReuseAddr, &true).map_err(at("bind"))?;
            named("bind", bind(number(fd)?, &storage(address)?))
        }
        ["listen", fd] => {
            let backlog = Backlog::new(16).map_err(at("listen"))?;
            named("listen", listen(&borrowed(number(fd)?), backlog))
        }
        ["accept", fd, new] => {
            let stream = accept(number(fd)?).map_err(at("accept"))?;
            place(stream, number(new)?, "accept")
        }
        ["connect", fd, address] => named("connect", connect(number(fd)?, &storage(address)?)),
        ["send", fd] => named(
            "send",
            send(number(fd)?, b"q", MsgFlags::MSG_NOSIGNAL).map(drop),
        ),
        ["sendto", fd, address] => {
            let target = storage(address)?;
            named(
                "sendto",
                sendto(number(fd)?, b"q", &target, MsgFlags::empty()).map(drop),
            )
        }
        ["receive", fd] => receive(number(fd)?),
        ["exchange", fd] => {
            let _sent = send(number(fd)?, b"q", MsgFlags::MSG_NOSIGNAL).map_err(at("send"))?;
            receive(number(fd)?)
        }
        ["shutdown", fd] => named("shutdown", shutdown(number(fd)?, Shutdown::Write)),
        ["close", fd] => named("close", close::<RawFd>(number(fd)?)),
        ["mailbox", path] => mailbox(path),
        ["give", path, fd] => give(path, number(fd)?),
        ["take", new] => take(number(new)?),
        ["cgroup", path] => {
            fs::write(Path::new(path).join("cgroup.procs"), "0").map_err(at("cgroup"))?;
            Ok(done("cgroup"))
        }
        ["netns", path] => {
            let file = File::open(path).map_err(at("netns"))?;
            named("netns", setns(file, CloneFlags::CLONE_NEWNET))
        }
        ["uid", uid] => named("uid", raw::set_uid(number(uid)?, -1)),
        ["euid", uid] => named("euid", raw::set_uid(-1, number(uid)?)),
        ["gid", gid] => named("gid", raw::set_gid(number(gid)?, -1)),
        ["egid", gid] => named("egid", raw::set_gid(-1, number(gid)?)),
        ["groups", gid] => named("groups", raw::set_group(number(gid)?)),
        ["race", before, after, called, address, times] => race::bind(
            [number(before)?, number(after)?],
            &storage(called)?,
            &storage(address)?,
            number(times)?,
        ),
        ["fork"] => raw::fork(),
        ["headless"] => {
            let _other = thread::spawn(|| {
                let ended = raw::first_thread_ended().map(|()| follow(&done("headless")));
                exit(i32::from(ended.is_err()));
            });
            raw::end_thread()
        }
        ["vfork", "connect", fd, address] => raw::vfork_connect(number(fd)?, &storage(address)?),
        ["exec", program] => Err(Failed("exec", Process::new(program).arg("puppet").exec())),
        ["thread", "uid", uid, ref rest @ ..] => {
            let uid = number(uid)?;
            in_thread(rest, move || raw::set_uid(uid, -1))
        }
        ["thread", "groups", gid, ref rest @ ..] => {
            let gid = number(gid)?;
            in_thread(rest, move || raw::set_group(gid))
        }
        ["thread", ref rest @ ..] => in_thread(rest, || Ok(())),
        ["uring", how, "connect", fd, address] => {
            ring::connect(how == "polled", number(fd)?, &storage(address)?)
        }
        ["uring", how, "send", fd] => ring::send(how == "polled", number(fd)?),
        _ => tricks::perform(words),
    }
}

fn make(kind: &str, fd: RawFd) -> Result<Outcome> {
    let kind = if kind == "udp" {
        SockType::Datagram
    } else {
        SockType::Stream
    };
    let socket =
        socket(AddressFamily::Inet, kind, SockFlag::empty(), None).map_err(at("socket"))?;
    let patience = TimeVal::new(PATIENCE, 0);
    setsockopt(&socket, SendTimeout, &patience).map_err(at("socket"))?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(1, 0)).map_err(at("socket"))?;
    place(socket.into_raw_fd(), fd, "socket")
}

fn duplicate(fd: RawFd) -> Result<RawFd> {
    let copy = borrowed(fd).try_clone_to_owned().map_err(at("dup"))?;
    Ok(copy.into_raw_fd())
}

fn in_thread(words: &[&str], first: impl FnOnce() -> nix::Result<()> + Send) -> Result<Outcome> {
    let work = move || {
        first().map_err(at("thread"))?;
        perform(words)
    };
    let ended = thread::scope(|scope| scope.spawn(work).join());
    ended.unwrap_or_else(|_| Err(Failed("thread", io::ErrorKind::Other.into())))
}

fn receive(fd: RawFd) -> Result<Outcome> {
    let mut buffer = [0; 64];
    let read = recv(fd, &mut buffer, MsgFlags::empty()).map_err(at("receive"))?;
    if read == 0 {
        return Err(Failed("receive", io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(Outcome {
        received: u64::try_from(read).unwrap_or(0),
        ..done("receive")
    })
}

/// Where sockets can be left for this process; they wait there until they are taken.
fn mailbox(path: &str) -> Result<Outcome> {
    let family = AddressFamily::Unix;
    let mailbox =
        socket(family, SockType::Datagram, SockFlag::empty(), None).map_err(at("mailbox"))?;
    let address = UnixAddr::new(path).map_err(at("mailbox"))?;
    bind(mailbox.as_raw_fd(), &address).map_err(at("mailbox"))?;
    place(mailbox.into_raw_fd(), MAILBOX, "mailbox")
}

fn give(path: &str, fd: RawFd) -> Result<Outcome> {
    let family = AddressFamily::Unix;
    let sender = socket(family, SockType::Datagram, SockFlag::empty(), None).map_err(at("give"))?;
    let address = UnixAddr::new(path).map_err(at("give"))?;
    let passed = [fd];
    let rights = [ControlMessage::ScmRights(&passed)];
    let data = [IoSlice::new(b"s")];
    let sent = sendmsg(
        sender.as_raw_fd(),
        &data,
        &rights,
        MsgFlags::empty(),
        Some(&address),
    );
    named("give", sent.map(drop))
}

fn take(new: RawFd) -> Result<Outcome> {
    let mut buffer = [0; 1];
    let mut data = [IoSliceMut::new(&mut buffer)];
    let mut space = cmsg_space!(RawFd);
    let message = recvmsg::<()>(MAILBOX, &mut data, Some(&mut space), MsgFlags::empty())
        .map_err(at("take"))?;
    let mut messages = message.cmsgs().map_err(at("take"))?;
    let passed = messages.find_map(|message| {
        if let ControlMessageOwned::ScmRights(fds) = message {
            fds.first().copied()
        } else {
            None
        }
    });
    let Some(fd) = passed else {
        return Err(Failed("take", io::ErrorKind::InvalidData.into()));
    };
    place(fd, new, "take")
}

fn named(step: &'static str, result: nix::Result<()>) -> Result<Outcome> {
    result.map_err(at(step))?;
    Ok(done(step))
}

fn number<T: FromStr>(word: &str) -> Result<T> {
    let parsed = word.parse();
    parsed.map_err(|_| Failed("script", io::ErrorKind::InvalidInput.into()))
}

fn storage(address: &str) -> Result<SockaddrStorage> {
    number::<SocketAddr>(address).map(SockaddrStorage::from)
}

/// Moves a descriptor to the number that the script names.
fn place(from: RawFd, to: RawFd, step: &'static str) -> Result<Outcome> {
    if from != to {
        raw::move_descriptor(from, to).map_err(at(step))?;
    }
    Ok(done(step))
}
