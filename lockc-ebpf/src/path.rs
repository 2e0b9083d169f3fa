//! Paths in the container's view.
//!
//! `bpf_d_path` stops at the task's root, so a task that calls `chroot` would
//! rename everything it sees; it is also refused in `path_*` hooks before 6.8.
//! This walk goes from a dentry through its mounts up to the *container's* root
//! (recorded when the task was contained) or the top of the mount namespace. A second one goes to the top of the
//! file system: the same path for whoever has it mounted, wherever.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel};
use lockc_common::{HOST_PREFIX, Label, PATH_RULE_LEN, PathKey, PathRule, PathVerdict, PathsBelow};

use crate::{
    atomic,
    kernel::{Location, Step, device_of},
    maps::{PATH_RULES, SCRATCH},
};

/// Longest path that can be built, in bytes (`PATH_MAX`).
const PATH_MAX: usize = 4096;
/// Never written: what follows a path is its zero padding.
const PADDING: usize = 512;
/// Longest name (`NAME_MAX`).
const NAME_MAX: u32 = 255;
/// Components and mounts that one walk may pass; a path of `PATH_MAX` bytes has at most half as
/// many components.
const MAX_STEPS: u32 = 4096;

/// Programs that may be under way on one CPU at once. A program can be preempted, by another
/// task's, between any two instructions, so a single per-CPU buffer would be overwritten.
pub(crate) const SCRATCH_SLOTS: u32 = 8;

/// Working memory of one walk.
#[repr(C)]
pub(crate) struct Scratch {
    /// 1 while in use.
    busy: u64,
    /// Lookup key for the trie: length in bits, then the data.
    prefix_len: u32,
    key: PathKey,
    reserved: u32,
    /// The path, built from its end; [`PADDING`] zero bytes follow.
    path: [u8; PATH_MAX + PADDING],
}

/// Why there is no path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathError {
    /// Longer than `PATH_MAX`, disconnected, or unreadable. Denies where a rule could apply.
    NoPath,
    /// No scratch slot was free. Denies as well.
    Busy,
}

/// A built path; gives its scratch slot back when dropped.
pub(crate) struct BuiltPath {
    scratch: *mut Scratch,
    start: u32,
}

impl Drop for BuiltPath {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: this value owns the slot.
        unsafe { atomic::swap(&raw mut (*self.scratch).busy, 0) };
    }
}

impl BuiltPath {
    /// Bytes of the path, its closing `/` included.
    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        PATH_MAX as u32 - self.start
    }

    /// Address and number of the path's last bytes that fit in `max`, without the closing `/`.
    #[inline(always)]
    pub(crate) fn tail(&self, max: u32) -> (u64, u32) {
        let len = self.len() - 1;
        let shown = if len > max { max } else { len };
        // SAFETY: address arithmetic inside the slot.
        let end = unsafe { (&raw const (*self.scratch).path).cast::<u8>().add(PATH_MAX - 1) };
        (end as u64 - u64::from(shown), shown)
    }

    #[inline(always)]
    fn prepare_key(&self, rules: u32) -> bool {
        let scratch = self.scratch;
        // SAFETY: this value owns the slot; the source has `PATH_RULE_LEN` bytes after any start
        // below `PATH_MAX`, because of the padding.
        unsafe {
            (*scratch).prefix_len = 8 * size_of::<PathKey>() as u32;
            (*scratch).key.rules = rules;
            let source =
                (&raw const (*scratch).path).cast::<u8>().add(self.start as usize & (PATH_MAX - 1));
            bpf_probe_read_kernel(
                (&raw mut (*scratch).key.path).cast(),
                PATH_RULE_LEN as u32,
                source.cast(),
            ) == 0
        }
    }

    /// What the longest entry that covers the path says. The key is prepared.
    #[inline(always)]
    fn rule(&self) -> PathRule {
        // SAFETY: `prefix_len` and `key` are laid out as an LPM trie key, and the slot is ours.
        let key = unsafe { &*(&raw const (*self.scratch).prefix_len).cast() };
        PATH_RULES.get(key).copied().unwrap_or_default()
    }

    /// Bytes of the path of the directory in which `dentry`, at the path's end, has its name: all but that, and its closing
    /// `/`.
    #[inline(always)]
    fn directory_len(&self, dentry: u64) -> Option<u32> {
        self.len().checked_sub(Step::name_len(dentry)?.wrapping_add(1))
    }
}

#[repr(C)]
struct Walk {
    scratch: *mut Scratch,
    mount: u64,
    mount_root: u64,
    dentry: u64,
    stop: Location,
    start: u32,
    /// 0 under way, 1 arrived, 2 failed.
    end: u32,
}

const ARRIVED: u32 = 1;
const FAILED: u32 = 2;

/// What rules say of a place, as the container sees it.
#[derive(Clone, Copy)]
pub(crate) struct View(u64);

impl View {
    /// Nothing at all: the place has no path, or there was no memory to build one.
    const NO_PATH: u64 = 1 << 63;
    /// Where the bits of [`PathsBelow`] are.
    const BELOW: u32 = 32;
    /// No rule is about its directory, or anything below that.
    const ONE_OF_MANY: u64 = 1 << 62;

    /// Looks the place up in `rules`.
    #[inline(always)]
    pub(crate) fn of(at: Location, label: &Label, rules: u32) -> Self {
        Self(view_path(label, at.mount, at.dentry, rules))
    }

    /// The same on the file system of the dentry, whatever is mounted where.
    #[inline(always)]
    pub(crate) fn on_file_system(dentry: u64, rules: u32) -> Self {
        Self(view_on_file_system(dentry, rules))
    }

    /// Whether there is a path. Denies where a rule could apply if not.
    #[inline(always)]
    pub(crate) fn has_path(self) -> bool {
        self.0 & Self::NO_PATH == 0
    }

    /// A [`PathVerdict`]: what the longest rule that covers the path says.
    #[inline(always)]
    pub(crate) fn verdict(self) -> u32 {
        self.0 as u32
    }

    /// What rules say of the path itself and of paths below it: bits of [`PathsBelow`].
    #[inline(always)]
    pub(crate) fn below(self) -> u32 {
        (self.0 >> Self::BELOW) as u32 & 0x3fff_ffff
    }

    /// Whether everything in its directory, and below that, has this verdict.
    #[inline(always)]
    pub(crate) fn is_one_of_many(self) -> bool {
        self.0 & Self::ONE_OF_MANY != 0
    }

    /// What cannot be looked up is denied, and so is whatever is below.
    #[inline(always)]
    fn look_up(path: &BuiltPath, dentry: u64, rules: u32) -> u64 {
        if !path.prepare_key(rules) {
            let below = PathsBelow::DENIED | PathsBelow::READ_ONLY;
            return u64::from(below) << Self::BELOW | PathVerdict::Deny as u64;
        }
        let rule = path.rule();
        let mut answer = u64::from(rule.verdict());
        if rule.len() == path.len() {
            answer |= u64::from(rule.below()) << Self::BELOW;
        }
        // An entry of the directory covers the path as well, so that there is none: nor one of anything below it.
        if path.directory_len(dentry).is_some_and(|len| rule.len() < len) {
            answer |= Self::ONE_OF_MANY;
        }
        answer
    }
}

/// A function that the verifier looks at once for each program, not at every call: those that the linker exports are
/// judged by themselves ("global functions", `kernel/bpf/verifier.c`, 6.1). So are all of these below; within their
/// callers they made the largest program twenty times as long for it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn view_path(label: *const Label, mount: u64, dentry: u64, rules: u32) -> u64 {
    // SAFETY: the verifier sees that every caller has a label, and wants it to be checked here all the same.
    let Some(label) = (unsafe { label.as_ref() }) else {
        return View::NO_PATH;
    };
    match build(Location { mount, dentry }, label) {
        Ok(path) => View::look_up(&path, dentry, rules),
        Err(_) => View::NO_PATH,
    }
}

/// See [`view_path`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn view_on_file_system(dentry: u64, rules: u32) -> u64 {
    match build_on_file_system(dentry) {
        Ok(path) => View::look_up(&path, dentry, rules),
        Err(_) => View::NO_PATH,
    }
}

/// Builds the path of `at` as the container of `label` sees it.
#[inline(always)]
pub(crate) fn build(at: Location, label: &Label) -> Result<BuiltPath, PathError> {
    let mut walk = begin(at, Location { mount: label.root_mnt, dentry: label.root_dentry })?;
    // SAFETY: `step` is a BPF function with the callback's signature, and `walk` outlives the call.
    unsafe {
        bpf_loop(MAX_STEPS, step as *const () as *mut c_void, (&raw mut walk).cast(), 0);
    }
    let start = walk.start & (PATH_MAX as u32 - 1);
    let built = BuiltPath { scratch: walk.scratch, start };
    if walk.end == ARRIVED { Ok(built) } else { Err(PathError::NoPath) }
}

/// Builds the path of the dentry at `dentry` on its file system, after [`HOST_PREFIX`] bytes: a key of rules about the
/// host, and nothing to be read by people.
#[inline(always)]
fn build_on_file_system(dentry: u64) -> Result<BuiltPath, PathError> {
    const PREFIX: u32 = HOST_PREFIX as u32;
    let mut walk = begin(Location { mount: 0, dentry }, Location { mount: 0, dentry: 0 })?;
    // SAFETY: as for `step`.
    unsafe {
        bpf_loop(MAX_STEPS, climb as *const () as *mut c_void, (&raw mut walk).cast(), 0);
    }
    let scratch = walk.scratch;
    let start = walk.start.wrapping_sub(PREFIX) & (PATH_MAX as u32 - 1);
    let built = BuiltPath { scratch, start };
    if walk.end != ARRIVED || walk.start < PREFIX {
        return Err(PathError::NoPath);
    }
    let Some(device) = device_of(dentry) else {
        return Err(PathError::NoPath);
    };
    // SAFETY: the slot is ours; five bytes after any start below `PATH_MAX` lie in the buffer, because of the padding.
    unsafe {
        let path = (&raw mut (*scratch).path).cast::<u8>().add(start as usize);
        *path = b'/';
        path.add(1).cast::<[u8; 4]>().write(device.to_le_bytes());
    }
    Ok(built)
}

/// Takes a scratch slot.
#[inline(always)]
fn begin(at: Location, stop: Location) -> Result<Walk, PathError> {
    let scratch = acquire().ok_or(PathError::Busy)?;
    // SAFETY: the slot is ours.
    unsafe { (*scratch).path[PATH_MAX - 1] = b'/' };
    Ok(Walk {
        scratch,
        mount: at.mount,
        mount_root: if at.mount == 0 { 0 } else { Step::mount_root(at.mount).unwrap_or(0) },
        dentry: at.dentry,
        stop,
        start: PATH_MAX as u32 - 1,
        end: 0,
    })
}

#[inline(always)]
fn acquire() -> Option<*mut Scratch> {
    for slot in 0..SCRATCH_SLOTS {
        let scratch = SCRATCH.get_ptr_mut(slot)?;
        // SAFETY: a live per-CPU slot.
        if unsafe { atomic::swap(&raw mut (*scratch).busy, 1) } == 0 {
            return Some(scratch);
        }
    }
    None
}

/// One step of the walk; 0 goes on, 1 ends it.
#[inline(never)]
extern "C" fn step(_index: u32, walk: *mut Walk) -> u64 {
    // SAFETY: `bpf_loop` passes the pointer that `build` gave it.
    let walk = unsafe { &mut *walk };
    let arrived = advance(walk);
    goes_on(walk, arrived)
}

/// One step of the walk that leaves mounts out of account.
#[inline(never)]
extern "C" fn climb(_index: u32, walk: *mut Walk) -> u64 {
    // SAFETY: `bpf_loop` passes the pointer that `build_on_file_system` gave it.
    let walk = unsafe { &mut *walk };
    let arrived = ascend(walk);
    goes_on(walk, arrived)
}

#[inline(always)]
fn goes_on(walk: &mut Walk, arrived: Option<bool>) -> u64 {
    match arrived {
        Some(false) => 0,
        Some(true) => {
            walk.end = ARRIVED;
            1
        }
        None => {
            walk.end = FAILED;
            1
        }
    }
}

#[inline(always)]
fn advance(walk: &mut Walk) -> Option<bool> {
    if walk.dentry == walk.stop.dentry && walk.mount == walk.stop.mount {
        return Some(true);
    }
    if walk.dentry == walk.mount_root {
        let parent = Step::parent_mount(walk.mount)?;
        if parent == walk.mount {
            return Some(true);
        }
        walk.dentry = Step::mountpoint(walk.mount)?;
        walk.mount = parent;
        walk.mount_root = Step::mount_root(parent)?;
        return Some(false);
    }
    let (parent, name, len) = Step::entry(walk.dentry)?;
    if parent == walk.dentry {
        return None; // disconnected: a handle whose parents are not in the cache
    }
    prepend(walk, parent, name, len)
}

#[inline(always)]
fn ascend(walk: &mut Walk) -> Option<bool> {
    let (parent, name, len) = Step::entry(walk.dentry)?;
    if parent == walk.dentry {
        return if Step::is_top(parent)? { Some(true) } else { None };
    }
    prepend(walk, parent, name, len)
}

/// Puts the dentry's name before what there is, and goes to its parent.
#[inline(always)]
fn prepend(walk: &mut Walk, parent: u64, name: u64, len: u32) -> Option<bool> {
    if len > NAME_MAX || len == 0 || walk.start <= len {
        return None;
    }
    let start = walk.start - len - 1;
    // The masks tell the verifier what the checks above have established.
    let index = start as usize & (PATH_MAX - 1);
    let len = len & NAME_MAX;
    // SAFETY: index + 1 + 255 lies within the buffer.
    unsafe {
        let path = (&raw mut (*walk.scratch).path).cast::<u8>();
        *path.add(index) = b'/';
        if bpf_probe_read_kernel(path.add(index + 1).cast(), len, name as *const c_void) != 0 {
            return None;
        }
    }
    walk.start = start;
    walk.dentry = parent;
    Some(false)
}
