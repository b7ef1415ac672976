//! Dumps of sockets with what the kernel programs remember of each: `inet_diag` adds the storage of a TCP
//! socket (`net/core/bpf_sk_storage.c`) and the cgroup of every socket, so that no owner has to be searched
//! for in /proc. UDP sockets come without storage: `inet_sk_diag_fill` ends before it for them.

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
};

use ringfence_common::{
    abi::{Decision, ExecutableKey, Owner, SocketState, identity, socket::BOUND_UNJUDGED},
    logic::address,
};

use super::{
    super::netlink::{ALL, attributes, word},
    COOKIE_IN_ID, Channel, ID_IN_REPLY, SOCK_DIAG_BY_FAMILY, SOCKET_ID,
};

/// States of `idiag_states` (`include/net/tcp_states.h`): a TCP listener, and a UDP socket that is bound
/// and not connected.
pub const LISTEN: u32 = 1 << 10;
pub const CLOSE: u32 = 1 << 7;
/// TCP: all between a handshake that has begun and the end (`TCP_TIME_WAIT` is no socket any more).
pub const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// Connected or not, listening or not.
pub const EVERY_STATE: u32 = u32::MAX;

/// `INET_DIAG_REQ_SK_BPF_STORAGES` and `SK_DIAG_BPF_STORAGE_REQ_MAP_FD`.
const REQUEST_STORAGES: u16 = 2;
const REQUEST_MAP: u16 = 1;
/// `INET_DIAG_SKV6ONLY`, `INET_DIAG_SK_BPF_STORAGES` and `INET_DIAG_CGROUP_ID`.
const V6ONLY: u16 = 11;
const STORAGES: u16 = 20;
const CGROUP: u16 = 21;
/// `SK_DIAG_BPF_STORAGE` and, inside, `SK_DIAG_BPF_STORAGE_MAP_VALUE`.
const STORAGE: u16 = 1;
const VALUE: u16 = 3;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
/// `struct inet_diag_msg`.
const MESSAGE: usize = 72;

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where it is bound; IPv4 mapped.
    pub address: [u8; 16],
    /// In host order, 0 = not bound.
    pub port: u16,
    /// An IPv6 socket that takes IPv6 only.
    pub v6only: bool,
    /// Listens (TCP), or is not connected (UDP).
    pub state: u8,
    /// Device that it is bound to, 0 = none.
    pub device: u32,
    /// Whose it is, where the programs have seen that; never of a UDP socket.
    pub owner: Option<Owner>,
    /// The other end; as the two above.
    pub remote: ([u8; 16], u16),
    /// What is known of its flow, where it has an owner.
    pub flow: Option<FlowState>,
    /// Whoever asked for its port was not judged yet ([`BOUND_UNJUDGED`]).
    pub unjudged: bool,
    /// cgroup of the socket: of the process that made it.
    pub cgroup: u64,
    /// User of the socket.
    pub uid: u32,
    /// `SO_COOKIE`.
    pub cookie: u64,
    /// Inode number, as in `socket:[N]` of /proc; 0 = no descriptor is open.
    pub inode: u64,
}

/// What the programs know of the flow of a TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowState {
    /// What was decided.
    pub decision: Decision,
    /// When it was opened (`CLOCK_BOOTTIME`, nanoseconds).
    pub opened_ns: u64,
    /// `PHASE_*`.
    pub phase: u8,
}

impl Channel {
    /// Every socket of the family and protocol that is in one of `states`, with its value in the map
    /// `storage` (that of [`SocketState`]). A socket that changes meanwhile may be missing.
    pub fn list(
        &mut self,
        family: u8,
        protocol: u8,
        states: u32,
        storage: BorrowedFd<'_>,
        mut each: impl FnMut(Listed),
    ) -> io::Result<()> {
        let request = request(family, protocol, states, storage);
        self.converse(SOCK_DIAG_BY_FAMILY, ALL, &request, |entry| {
            if let Some(socket) = listed(entry) {
                each(socket);
            }
        })
    }
}

fn request(family: u8, protocol: u8, states: u32, storage: BorrowedFd<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + SOCKET_ID + 4 + 8);
    out.extend([family, protocol, 0, 0]);
    out.extend(states.to_ne_bytes());
    out.extend([0; SOCKET_ID]);
    out.extend(12_u16.to_ne_bytes());
    out.extend((REQUEST_STORAGES | NESTED).to_ne_bytes());
    out.extend(8_u16.to_ne_bytes());
    out.extend(REQUEST_MAP.to_ne_bytes());
    out.extend(storage.as_raw_fd().to_ne_bytes());
    out
}

fn listed(entry: &[u8]) -> Option<Listed> {
    let v4 = i32::from(*entry.first()?) == libc::AF_INET;
    let id = entry.get(ID_IN_REPLY..ID_IN_REPLY + SOCKET_ID)?;
    let address = |at: usize| -> Option<[u8; 16]> {
        if v4 {
            let bytes = id.get(at..at + 4)?;
            return Some(address::map_v4(bytes.try_into().ok()?));
        }
        id.get(at..at + 16)?.try_into().ok()
    };
    let port = |at: usize| Some(u16::from_be_bytes(id.get(at..at + 2)?.try_into().ok()?));
    let mut socket = Listed {
        address: address(4)?,
        port: port(0)?,
        remote: (address(20)?, port(2)?),
        flow: None,
        unjudged: false,
        v6only: false,
        state: *entry.get(1)?,
        device: word(id, 36)?,
        owner: None,
        cgroup: 0,
        uid: word(entry, MESSAGE - 8)?,
        cookie: u64::from(word(id, COOKIE_IN_ID)?) | u64::from(word(id, COOKIE_IN_ID + 4)?) << 32,
        inode: word(entry, MESSAGE - 4)?.into(),
    };
    for (kind, value) in attributes(entry.get(MESSAGE..)?) {
        match kind {
            V6ONLY => socket.v6only = value.first() == Some(&1),
            CGROUP => socket.cgroup = long(value, 0).unwrap_or(0),
            STORAGES => {
                let state = state(value);
                socket.owner = state.and_then(owner);
                let state = state.filter(|_| socket.owner.is_some());
                socket.flow = state.and_then(flow);
                socket.unjudged = state.is_some_and(was_unjudged);
            }
            _ => {}
        }
    }
    Some(socket)
}

/// The value among those of all storages that were asked for, which is one.
fn state(storages: &[u8]) -> Option<&[u8]> {
    attributes(storages)
        .filter(|(kind, _)| *kind == STORAGE)
        .flat_map(|(_, storage)| attributes(storage))
        .find_map(|(kind, value)| (kind == VALUE).then_some(value))
}

/// The owner in a [`SocketState`]; `None` until somebody was given it.
fn owner(state: &[u8]) -> Option<Owner> {
    const OWNER: usize = mem::offset_of!(SocketState, owner);
    const EXECUTABLE: usize = OWNER + mem::offset_of!(Owner, executable);
    if state.len() != mem::size_of::<SocketState>() {
        return None;
    }
    let word = |at: usize| word(state, at);
    let long = |at: usize| long(state, at);
    let comm = OWNER + mem::offset_of!(Owner, comm);
    let owner = Owner {
        identity: word(OWNER + mem::offset_of!(Owner, identity))?,
        class: word(OWNER + mem::offset_of!(Owner, class))?,
        cgroup: long(OWNER + mem::offset_of!(Owner, cgroup))?,
        netns: long(OWNER + mem::offset_of!(Owner, netns))?,
        executable: ExecutableKey {
            inode: long(EXECUTABLE + mem::offset_of!(ExecutableKey, inode))?,
            ctime_sec: long(EXECUTABLE + mem::offset_of!(ExecutableKey, ctime_sec))?,
            ctime_nsec: word(EXECUTABLE + mem::offset_of!(ExecutableKey, ctime_nsec))?,
            device: word(EXECUTABLE + mem::offset_of!(ExecutableKey, device))?,
        },
        tgid: word(OWNER + mem::offset_of!(Owner, tgid))?,
        uid: word(OWNER + mem::offset_of!(Owner, uid))?,
        comm: state.get(comm..comm + 16)?.try_into().ok()?,
        generation: word(OWNER + mem::offset_of!(Owner, generation))?,
        pad: 0,
    };
    (owner.identity != identity::UNKNOWN).then_some(owner)
}

fn was_unjudged(state: &[u8]) -> bool {
    let marks = state.get(mem::offset_of!(SocketState, marks));
    marks.is_some_and(|marks| marks & BOUND_UNJUDGED != 0)
}

/// The flow in a [`SocketState`] that has an owner.
fn flow(state: &[u8]) -> Option<FlowState> {
    const DECISION: usize = mem::offset_of!(SocketState, decision);
    let byte = |at: usize| state.get(DECISION + at).copied();
    let word = |at: usize| word(state, DECISION + at);
    Some(FlowState {
        decision: Decision {
            until: long(state, DECISION + mem::offset_of!(Decision, until))?,
            rule: word(mem::offset_of!(Decision, rule))?,
            draft_rule: word(mem::offset_of!(Decision, draft_rule))?,
            peer: word(mem::offset_of!(Decision, peer))?,
            direction: byte(mem::offset_of!(Decision, direction))?,
            flags: byte(mem::offset_of!(Decision, flags))?,
            pad: [0; 2],
            generation: word(mem::offset_of!(Decision, generation))?,
            verdict: byte(mem::offset_of!(Decision, verdict))?,
            reason: byte(mem::offset_of!(Decision, reason))?,
            draft_verdict: byte(mem::offset_of!(Decision, draft_verdict))?,
            draft_reason: byte(mem::offset_of!(Decision, draft_reason))?,
        },
        opened_ns: long(state, mem::offset_of!(SocketState, opened_ns))?,
        phase: *state.get(mem::offset_of!(SocketState, phase))?,
    })
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap_or(0);
        let mut out = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn entry(family: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut out = vec![family, 10, 0, 0];
        out.extend(8080_u16.to_be_bytes());
        out.extend([0; 2]);
        out.extend([10, 0, 0, 1]);
        out.extend([0; 28]);
        out.extend(7_u32.to_ne_bytes());
        out.extend(9_u32.to_ne_bytes());
        out.extend(1_u32.to_ne_bytes());
        out.resize(MESSAGE - 8, 0);
        out.extend(1000_u32.to_ne_bytes());
        out.extend(55_u32.to_ne_bytes());
        out.extend(attributes.concat());
        out
    }

    #[test]
    fn a_socket_is_read_with_its_owner_and_cgroup() {
        let mut state = vec![0; mem::size_of::<SocketState>()];
        let mut put = |at: usize, bytes: &[u8]| {
            for (to, from) in state.iter_mut().skip(at).zip(bytes) {
                *to = *from;
            }
        };
        put(0, &300_u32.to_ne_bytes());
        put(8, &99_u64.to_ne_bytes());
        put(24, &5_u64.to_ne_bytes());
        put(48, &1234_u32.to_ne_bytes());
        put(56, b"web");
        put(
            mem::offset_of!(SocketState, opened_ns),
            &17_u64.to_ne_bytes(),
        );
        put(mem::offset_of!(SocketState, phase), &[2]);
        put(mem::offset_of!(SocketState, marks), &[BOUND_UNJUDGED]);
        let decision = mem::offset_of!(SocketState, decision);
        put(
            decision + mem::offset_of!(Decision, peer),
            &301_u32.to_ne_bytes(),
        );
        put(decision + mem::offset_of!(Decision, flags), &[2]);
        let value = [attribute(2, &[0; 4]), attribute(VALUE, &state)].concat();
        let storages = attribute(STORAGES | NESTED, &attribute(STORAGE | NESTED, &value));
        let cgroup = attribute(CGROUP, &77_u64.to_ne_bytes());
        let bytes = entry(2, &[attribute(8, &[0]), cgroup, storages]);
        let Some(socket) = listed(&bytes) else {
            unreachable!("a whole entry is read")
        };
        assert_eq!(socket.address, address::map_v4([10, 0, 0, 1]));
        assert_eq!((socket.port, socket.device), (8080, 7));
        assert_eq!((socket.cgroup, socket.uid, socket.state), (77, 1000, 10));
        assert_eq!((socket.cookie, socket.inode), (9 | 1 << 32, 55));
        let owner = socket.owner.unwrap_or_default();
        assert_eq!((owner.identity, owner.cgroup, owner.tgid), (300, 99, 1234));
        assert_eq!(owner.executable.inode, 5);
        let flow = socket.flow.map(|flow| {
            let Decision { peer, flags, .. } = flow.decision;
            (peer, flags, flow.opened_ns, flow.phase)
        });
        assert_eq!(flow, Some((301, 2, 17, 2)));
        assert!(socket.unjudged);
        assert_eq!(owner.comm.get(..4), Some(&b"web\0"[..]));
        // Cut anywhere, it is another socket or none, and never a panic.
        for end in 0..bytes.len() {
            let _ = listed(bytes.get(..end).unwrap_or_default());
        }
    }

    #[test]
    fn a_storage_without_owner_or_of_another_size_owns_nothing() {
        assert_eq!(owner(&[0; 128]), None);
        assert_eq!(owner(&[1; 120]), None);
        let only = listed(&entry(10, &[attribute(V6ONLY, &[1])]));
        assert!(only.is_some_and(|socket| socket.v6only && socket.owner.is_none()));
        let endless = attribute(CGROUP, &[]);
        let broken = [endless, vec![0, 0, 21, 0], vec![255; 8]].concat();
        assert!(listed(&entry(2, &[broken])).is_some());
    }
}
