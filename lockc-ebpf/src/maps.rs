//! The maps, and what each of them is for.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    helpers::generated::{bpf_task_storage_delete, bpf_task_storage_get},
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf, lpm_trie::Key},
};
use lockc_common::{
    Adoption, Container, ContainerName, Counter, HostDevice, InodeKey, KnownFile, Label,
    MAX_POLICIES, NameEnd, NetworkKey, Number, PathKey, PathRule, Pending, Policy, PolicyName,
    RuntimeName,
};

use crate::{
    kernel::Task,
    memo::{self, Entry},
    path::Scratch,
};

/// Task storage, which aya-ebpf has no type for: the layout of a BTF map
/// definition (`__uint`, `__type` in libbpf's `bpf_helpers.h`).
#[repr(C)]
pub(crate) struct TaskStorage<T> {
    r#type: *const [i32; 29], // BPF_MAP_TYPE_TASK_STORAGE
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; 1], // BPF_F_NO_PREALLOC
}

// SAFETY: the static is a description for the loader; nobody reads it at run time.
unsafe impl<T> Sync for TaskStorage<T> {}

impl<T> TaskStorage<T> {
    const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }

    fn as_ptr(&self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }

    /// The task's value, if it has one.
    #[inline(always)]
    pub(crate) fn get(&self, task: Task) -> Option<&mut T> {
        // SAFETY: the map is a task storage of `T`, `task` is a verifier-typed pointer; the value
        // lives as long as the task, which outlives this program.
        unsafe {
            bpf_task_storage_get(self.as_ptr(), task.as_ptr().cast(), ptr::null_mut(), 0)
                .cast::<T>()
                .as_mut()
        }
    }

    /// The task's value, made and zeroed if it has none. `None` without memory.
    #[inline(always)]
    pub(crate) fn get_or_create(&self, task: Task) -> Option<&mut T> {
        const CREATE: u64 = 1; // BPF_LOCAL_STORAGE_GET_F_CREATE
        // SAFETY: as for `get`.
        unsafe {
            bpf_task_storage_get(self.as_ptr(), task.as_ptr().cast(), ptr::null_mut(), CREATE)
                .cast::<T>()
                .as_mut()
        }
    }

    /// The task's value, made as a copy of `value` if it has none: other programs see all of it, or nothing. `value`
    /// must lie in a map (`ARG_PTR_TO_MAP_VALUE_OR_NULL`, `kernel/bpf/bpf_task_storage.c`, 6.1).
    #[inline(always)]
    pub(crate) fn get_or_create_as(&self, task: Task, value: &mut T) -> Option<&mut T> {
        const CREATE: u64 = 1; // BPF_LOCAL_STORAGE_GET_F_CREATE
        // SAFETY: as for `get`.
        unsafe {
            bpf_task_storage_get(
                self.as_ptr(),
                task.as_ptr().cast(),
                ptr::from_mut(value).cast(),
                CREATE,
            )
            .cast::<T>()
            .as_mut()
        }
    }

    /// Removes the task's value.
    #[inline(always)]
    pub(crate) fn delete(&self, task: Task) {
        // SAFETY: as for `get`. A task without a value is fine.
        unsafe { bpf_task_storage_delete(self.as_ptr(), task.as_ptr().cast()) };
    }
}

/// Label of every task that belongs to a container or its runtime.
#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "LABELS")]
pub(crate) static LABELS: TaskStorage<Label> = TaskStorage::new();

/// Files of tmpfs that a contained task has mapped for writing. Not inode storage, which neither programs that modify
/// return values may use nor every kernel without LSM programs has. The value says nothing.
#[map]
pub(crate) static DRIFTED: HashMap<InodeKey, u8> = HashMap::with_max_entries(16_384, 1);

/// What the time of day is ahead of the time since boot, in ns.
#[map]
pub(crate) static CLOCK: Array<i64> = Array::with_max_entries(1, 0);

/// Handle → container. Ends with the container's last task.
#[map]
pub(crate) static CONTAINERS: HashMap<u64, Container> = HashMap::with_max_entries(32_768, 1);

/// How many records there are with [`lockc_common::BY_USER`].
#[map]
pub(crate) static USER_RECORDS: Array<u64> = Array::with_max_entries(1, 0);

/// Thread id → registration that waits for the thread's `execve`.
#[map]
pub(crate) static PENDING: HashMap<u32, Pending> = HashMap::with_max_entries(16_384, 1);

/// Process id → how a process that ran before lockc is to be labelled.
#[map]
pub(crate) static ADOPTIONS: LpmTrie<u32, Adoption> = LpmTrie::with_max_entries(65_536, 1);

/// Handle → what the labels of an adopted container's tasks have in common.
#[map]
pub(crate) static ADOPTED: LpmTrie<Number, Label> = LpmTrie::with_max_entries(32_768, 1);

/// A label in the making.
#[map]
pub(crate) static MADE_LABEL: Array<Label> = Array::with_max_entries(1, 0);

/// Sequence number of a mount namespace → handle of the container that owns it.
#[map]
pub(crate) static MOUNT_NAMESPACES: LpmTrie<Number, u64> = LpmTrie::with_max_entries(131_072, 1);

/// Policies by id.
#[map]
pub(crate) static POLICIES: Array<Policy> = Array::with_max_entries(MAX_POLICIES, 0);

/// `(rules, path)` of every path with a rule, and of every directory above one; the longest counts.
#[map]
pub(crate) static PATH_RULES: LpmTrie<PathKey, PathRule> = LpmTrie::with_max_entries(131_072, 1);

/// File systems that rules about the host are about. The value says nothing.
#[map]
pub(crate) static HOST_DEVICES: LpmTrie<HostDevice, u8> = LpmTrie::with_max_entries(131_072, 1);

/// `(rules, kind, port, address)` → [`lockc_common::NetworkVerdict`]; the longest rule wins.
#[map]
pub(crate) static NETWORK_RULES: LpmTrie<NetworkKey, u32> = LpmTrie::with_max_entries(131_072, 1);

/// Directories that are remembered.
#[map]
pub(crate) static MEMO: PerCpuArray<Entry> = PerCpuArray::with_max_entries(memo::ENTRIES, 0);

/// Grows when what is remembered counts no more.
#[map]
pub(crate) static EPOCH: Array<u64> = Array::with_max_entries(1, 0);

/// Files of this node that are OCI runtimes, or lockc's own.
#[map]
pub(crate) static KNOWN_FILES: HashMap<InodeKey, KnownFile> = HashMap::with_max_entries(4_096, 1);

/// How base names of OCI runtimes begin → how they end: the second line when a file is newer than the last scan.
#[map]
pub(crate) static RUNTIME_NAMES: LpmTrie<RuntimeName, NameEnd> =
    LpmTrie::with_max_entries(1_024, 1);

/// Denials, audits and notices for the daemon.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// What happened how often, per CPU.
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// Working memory for paths; see [`Scratch`].
#[map]
pub(crate) static SCRATCH: PerCpuArray<Scratch> =
    PerCpuArray::with_max_entries(crate::path::SCRATCH_SLOTS, 0);

/// An LPM trie key with the alignment that the verifier wants of what lies on the stack.
#[repr(C)]
struct TrieKey<K> {
    prefix_len: u32,
    key: K,
}

impl<K> TrieKey<K> {
    #[inline(always)]
    fn as_key(&self) -> &Key<K> {
        // SAFETY: laid out as an LPM trie key, which aya has as a packed structure.
        unsafe { &*(&raw const *self).cast() }
    }
}

/// What a trie has for the longest beginning of the `bits` of a key, which is aligned to 4 bytes.
#[inline(always)]
pub(crate) fn longest<K, V>(trie: &LpmTrie<K, V>, bits: u32, key: K) -> Option<&V> {
    trie.get(TrieKey { prefix_len: bits, key }.as_key())
}

/// Puts `value` into a trie for a key all `bits` of which count.
#[inline(always)]
pub(crate) fn put<K, V>(trie: &LpmTrie<K, V>, bits: u32, key: K, value: &V) {
    // Fails when the trie is full, or without memory. A namespace then stays unknown, see `own`; what an adopted
    // container's tasks have in common the daemon puts there itself in its next round, and says if it cannot.
    let _ = trie.insert(TrieKey { prefix_len: bits, key }.as_key(), value, 0);
}

/// The container that owns a mount namespace.
#[inline(always)]
pub(crate) fn owner_of(namespace: u64) -> Option<u64> {
    longest(&MOUNT_NAMESPACES, Number::BITS, Number::from(namespace)).copied()
}

/// Makes a mount namespace the container's. Where that fails the namespace stays unknown, and what is mounted there is
/// foreign to the container: it loses access, nobody gains any.
#[inline(always)]
pub(crate) fn own(namespace: u64, handle: u64) {
    put(&MOUNT_NAMESPACES, Number::BITS, Number::from(namespace), &handle);
}

/// Adds one to a counter.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: a live per-CPU slot; the addition is atomic because a program may be preempted.
        unsafe { crate::atomic::fetch_add(value, 1) };
    }
}

/// Handle → id of the container, for the daemon's messages; no program reads it.
#[map]
pub(crate) static CONTAINER_NAMES: HashMap<u64, ContainerName> =
    HashMap::with_max_entries(32_768, 1);

/// Policy id → its name and a digest of its rules, for the daemon; no program reads it.
#[map]
pub(crate) static POLICY_NAMES: HashMap<u32, PolicyName> =
    HashMap::with_max_entries(MAX_POLICIES, 1);
