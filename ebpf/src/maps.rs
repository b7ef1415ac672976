//! The maps. Names stand in `ringfence_common::abi::names`; the loader sets sizes where they are
//! configurable.

use aya_ebpf::{
    bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type},
    btf_maps::{Array, HashMap, HashOfMaps, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
    helpers::generated::bpf_sk_storage_get,
    macros::btf_map,
};
use core::ffi::c_void;
use ringfence_common::abi::{
    CgroupEntry, ChildKey, ClassGroups, Count, Event, ExecutableKey, FailsafeEntry, FlowEntry,
    FlowKey, Handoff, Header, Identity, LocalKey, ProcessKey, Refusal, Refuser, RuleEntry, RuleKey,
    Sender, SenderKey, Settings, SlotKey, SocketState, Unanswered, count, reason,
    settings::MAX_FAILSAFE,
};

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// A [`RuleEntry`] as the type information of the object tells of it: no structure. Before Linux 6.2
/// `bpf_map_meta_equal` compares where a structure holds a timer, so that the inner maps of the agent, which have
/// no type information, would be refused beside one that has.
pub type RuleWords = [u64; size_of::<RuleEntry>() / 8];
/// Rules of one identity.
pub type RuleTable = HashMap<RuleKey, RuleWords, 1, NO_PREALLOC>;
/// Address classes of one identity.
pub type CidrTable = LpmTrie<[u32; 4], u32, 1>;

#[btf_map]
pub static ACTIVE: Array<u64, 1> = Array::new();
#[btf_map]
pub static ARMED: Array<u32, 1> = Array::new();
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map]
pub static FAILSAFE: Array<FailsafeEntry, MAX_FAILSAFE> = Array::new();
#[btf_map]
pub static CGROUPS: HashMap<u64, CgroupEntry, 131_072, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static CHILDREN: HashMap<ChildKey, CgroupEntry, 131_072, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static EXECUTABLES: HashMap<ExecutableKey, u32, 65_536, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static PROCESSES: HashMap<ProcessKey, Identity, 262_144, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static GROUPS: HashMap<u32, ClassGroups, 16_384, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static LOCAL_ADDRESSES: HashMap<LocalKey, u8, 65_536, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static HEADERS: HashMap<SlotKey, Header, 131_072, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static RULES: HashOfMaps<SlotKey, RuleTable, 131_072, NO_PREALLOC> = HashOfMaps::new();
#[btf_map]
pub static CIDRS: HashOfMaps<SlotKey, CidrTable, 131_072, NO_PREALLOC> = HashOfMaps::new();
#[btf_map]
pub static SOCKETS: SocketStorage = SocketStorage::new();
#[btf_map]
pub static FLOWS: HashMap<FlowKey, FlowEntry, 65_536, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static OVERFLOW: LruHashMap<FlowKey, FlowEntry, 16_384> = LruHashMap::new();
#[btf_map]
pub static SENDERS: LruHashMap<SenderKey, Sender, 16_384> = LruHashMap::new();
#[btf_map]
pub static DENIED: LruHashMap<FlowKey, Refusal, 16_384> = LruHashMap::new();
#[btf_map]
pub static REFUSERS: LruHashMap<u64, Refuser, 16_384> = LruHashMap::new();
#[btf_map]
pub static EVENTS: RingBuf<Event, 4_194_304> = RingBuf::new();
#[btf_map]
pub static COUNTS: PerCpuArray<u64, { count::LEN as usize }> = PerCpuArray::new();
#[btf_map]
pub static REASONS: PerCpuArray<u64, { 4 * reason::SLOTS as usize }> = PerCpuArray::new();
#[btf_map]
pub static UNANSWERED: RingBuf<Unanswered, 65_536> = RingBuf::new();
#[btf_map]
pub static ANSWERED: Array<Refuser, 1> = Array::new();
#[btf_map]
pub static SOURCES: LruHashMap<u64, Refuser, 4096> = LruHashMap::new();
#[btf_map]
pub static HANDOFF: PerCpuArray<Handoff, 1> = PerCpuArray::new();

/// Socket storage whose value an accepted socket copies from its listener (`BPF_F_CLONE`).
#[repr(C)]
pub struct SocketStorage {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const SocketState,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the fields are placeholders that the loader reads as type information; nothing is behind them.
unsafe impl Sync for SocketStorage {}

impl SocketStorage {
    const fn new() -> Self {
        use core::ptr::null;
        Self {
            r#type: null(),
            key: null(),
            value: null(),
            max_entries: null(),
            map_flags: null(),
        }
    }

    /// State of a socket, if it has one.
    #[inline(always)]
    pub fn get<'a>(&self, sk: *mut c_void) -> Option<&'a mut SocketState> {
        self.storage(sk, 0)
    }

    /// State of a socket, made (zeroed) when it has none.
    #[inline(always)]
    pub fn get_or_create<'a>(&self, sk: *mut c_void) -> Option<&'a mut SocketState> {
        let state = self.storage(sk, u64::from(BPF_SK_STORAGE_GET_F_CREATE));
        if state.is_none() {
            count(Count::StorageFailed);
        }
        state
    }

    #[inline(always)]
    fn storage<'a>(&self, sk: *mut c_void, flags: u64) -> Option<&'a mut SocketState> {
        let map = core::ptr::from_ref(self).cast_mut().cast::<c_void>();
        // SAFETY: the verifier checks `sk`; the value lives as long as the program runs. Several CPUs
        // may write it: every field is an integer, and `Decision` carries its generation.
        unsafe {
            bpf_sk_storage_get(map, sk, core::ptr::null_mut(), flags)
                .cast::<SocketState>()
                .as_mut()
        }
    }
}

/// The active generation; read once by each program run.
#[inline(always)]
pub fn generation() -> u32 {
    // Truncation is meant: the low half is what a decision stores.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a decision stores the low half"
    )]
    ACTIVE.get(0).map_or(0, |active| *active as u32)
}

/// Whether what is refused is refused. Before all programs of a first start are attached it passes: what only some
/// of them have seen can't be judged. They judge and note all the same.
#[inline(always)]
pub fn is_armed() -> bool {
    ARMED.get(0).is_none_or(|armed| *armed != 0)
}

/// Adds one to a counter.
#[inline(always)]
pub fn count(what: Count) {
    if let Some(counter) = COUNTS.get_ptr_mut(what as u32) {
        // SAFETY: a per-CPU slot; a program that interrupts this one may make it miss by one.
        unsafe { *counter += 1 };
    }
}

/// Counts a decision that is also recorded.
#[inline(always)]
pub fn count_reason(direction: u8, reason: u8) {
    if let Some(counter) = REASONS.get_ptr_mut(reason::slot(direction, reason)) {
        // SAFETY: as above.
        unsafe { *counter += 1 };
    }
}
