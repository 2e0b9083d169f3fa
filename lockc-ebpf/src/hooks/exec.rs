//! `execve`: where registrations are taken up and containers begin.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_loop};
use lockc_common::{InodeKey, Label, LabelFlags, Operation, Pending, PolicyFlags, State, Stdio};

use crate::{
    Answer,
    container::{self, Subject},
    hooks::{file::first_program, foreign::is_foreign, identity, known::is_runtime},
    kernel::{Bprm, File, Step, Task, dentry_key_at, file_address, mount_owner, open_file, read},
    maps::{LABELS, PENDING, own, owner_of},
    report::{self, Object},
};

/// Directories that a search for the container's root file system passes.
const MAX_DEPTH: u32 = 64;

/// Once per `execve`, in the calling thread, before anything of the new program is set up
/// (`security_bprm_creds_for_exec`, fs/exec.c). `bprm_check_security` would be too often: it comes
/// once per interpreter.
#[inline(always)]
pub(crate) fn creds_for_exec(bprm: Bprm) -> Answer {
    let task = Task::current();
    let Some(label) = LABELS.get(task) else {
        return unlabelled(task, bprm);
    };
    if label.state == State::Contained as u32 {
        return contained(task, label, bprm.file());
    }
    if label.state == State::Pending as u32 {
        // A registration whose `execve` failed after this hook: it ends here.
        container::leave(label.container);
        LABELS.delete(task);
        return unlabelled(task, bprm);
    }
    runtime(task, label, bprm)
}

/// The `execve` has succeeded.
#[inline(always)]
pub(crate) fn committed_creds() {
    let Some(label) = LABELS.get(Task::current()) else {
        return;
    };
    if label.state == State::Pending as u32 {
        label.state = State::Runtime as u32;
        if label.flags & LabelFlags::UNREGISTERED != 0 {
            report::unregistered(label.container);
        }
    }
}

/// A runtime task that changes its root has set up the container's file system; what it executes
/// next is container code, whatever its mount namespace.
#[inline(always)]
pub(crate) fn root_changes() {
    if let Some(label) = LABELS.get(Task::current())
        && label.state == State::Runtime as u32
    {
        label.flags |= LabelFlags::ENTERED;
    }
}

/// Takes the registration of this thread, if there is one that was meant for this very `execve`.
#[inline(always)]
fn take_registration(task: Task, file: File) -> Option<Pending> {
    // SAFETY: no preconditions.
    let tid = bpf_get_current_pid_tgid() as u32;
    // SAFETY: the value is copied at once.
    let pending = *unsafe { PENDING.get(&tid) }?;
    // The daemon may be withdrawing it at the same time.
    PENDING.remove(&tid).ok()?;
    // For an earlier task of the same number, or for an `execve` that failed?
    if pending.start_ticks != task.start_ticks() || pending.exe != file.inode().key() {
        container::leave(pending.container);
        return None;
    }
    Some(pending)
}

#[inline(always)]
fn drop_registration(registration: Option<Pending>) {
    if let Some(pending) = registration {
        container::leave(pending.container);
    }
}

#[inline(always)]
fn unlabelled(task: Task, bprm: Bprm) -> Answer {
    let (container, flags) = if let Some(pending) = take_registration(task, bprm.file()) {
        // The registration counted as a task of its container, and its count goes to the label.
        (pending.container, pending.flags)
    } else if is_runtime(bprm.file()) {
        (container::make_unattributed(task), LabelFlags::UNREGISTERED)
    } else {
        return Answer::Allow;
    };
    label_runtime(task, container, flags)
}

#[inline(always)]
fn label_runtime(task: Task, container: u64, flags: u32) -> Answer {
    let Some(label) = LABELS.get_or_create(task) else {
        container::leave(container);
        return Answer::NoMemory;
    };
    label.container = container;
    label.flags = flags;
    label.home_ns = task.mount_namespace().seq;
    label.state = State::Pending as u32;
    Answer::Allow
}

/// An `execve` by the runtime, its init or one of its hooks.
#[inline(always)]
fn runtime(task: Task, label: &'static mut Label, bprm: Bprm) -> Answer {
    let file = bprm.file();
    let namespace = task.mount_namespace().seq;
    let registration = take_registration(task, file);
    if label.flags & LabelFlags::ENTERED == 0 {
        if namespace == label.home_ns {
            if let Some(pending) = registration {
                // A runtime that executes a runtime: the inner registration is more precise.
                container::leave(label.container);
                label.container = pending.container;
                label.flags = pending.flags;
                return Answer::Allow;
            }
            return on_host_side(label, file);
        }
        if label.flags & LabelFlags::HOOKS != 0 {
            match place(label.container, file) {
                Place::Host => {
                    drop_registration(registration);
                    return Answer::Allow; // a createContainer hook, a program of the host
                }
                Place::Image => {
                    drop_registration(registration);
                    contain(task, label, namespace);
                    return image_program_on_host_root(label, file);
                }
                Place::Unknown => {}
            }
        }
    }
    // A container that starts with a runtime of the node's is a container all the same: what its
    // command line says is its own business.
    drop_registration(registration);
    contain(task, label, namespace);
    let answer = contained(task, label, file);
    if answer != Answer::Allow {
        return answer;
    }
    first_program(label, file)
}

/// Runtimes restore checkpoints by executing CRIU, whose tasks *become* the container's without an
/// `execve` of their own: that cannot be followed, so it is refused.
#[inline(always)]
fn on_host_side(label: &'static Label, file: File) -> Answer {
    const CRIU: u32 = u32::from_le_bytes(*b"criu");
    if label.flags & LabelFlags::CRIU != 0 {
        return Answer::Allow;
    }
    let at = file.location();
    let Some((address, 4)) = Step::name(at.dentry) else {
        return Answer::Allow;
    };
    if read::<u32>(address) != Some(CRIU) {
        return Answer::Allow;
    }
    match Subject::of(label) {
        Some(subject) => subject.deny(Operation::Restore, Object::At(at)),
        None => Answer::Allow,
    }
}

/// Where a file comes from, as far as a createContainer hook is concerned.
enum Place {
    Host,
    Image,
    /// The root file system is not known, or the file lies too deep to tell.
    Unknown,
}

/// Looks for the container's root file system among the directories above the file.
#[inline(always)]
fn place(container: u64, file: File) -> Place {
    let Some(rootfs) = container::rootfs(container) else {
        return Place::Unknown;
    };
    let mut search = Search { dentry: file.location().dentry, rootfs, found: Place::Unknown };
    // SAFETY: `look` is a BPF function with the callback's signature, and `search` outlives the call.
    unsafe {
        bpf_loop(MAX_DEPTH, look as *const () as *mut c_void, (&raw mut search).cast(), 0);
    }
    search.found
}

struct Search {
    dentry: u64,
    rootfs: InodeKey,
    found: Place,
}

/// One step of the search; 0 goes on, 1 ends it.
#[inline(never)]
extern "C" fn look(_index: u32, search: *mut Search) -> u64 {
    // SAFETY: `bpf_loop` passes the pointer that `place` gave it.
    let search = unsafe { &mut *search };
    let Some(key) = dentry_key_at(search.dentry) else {
        return 1;
    };
    if key == search.rootfs {
        search.found = Place::Image;
        return 1;
    }
    match Step::parent(search.dentry) {
        Some(parent) if parent != search.dentry => {
            search.dentry = parent;
            0
        }
        Some(_) => {
            search.found = Place::Host;
            1
        }
        None => 1,
    }
}

/// A createContainer hook executes a program of the image while the host's root is still the root:
/// nothing that is denied to containers has its name there, so the program does not start.
#[inline(always)]
fn image_program_on_host_root(label: &'static Label, file: File) -> Answer {
    match Subject::of(label) {
        Some(subject) if subject.wants(PolicyFlags::FOREIGN_MOUNT) => {
            subject.deny(Operation::ForeignExec, Object::At(file.location()))
        }
        _ => Answer::Allow,
    }
}

/// From here on the task is container code; there is no way back.
#[inline(always)]
fn contain(task: Task, label: &mut Label, namespace: u64) {
    if namespace != label.home_ns {
        // Whose namespace is this? A task that a runtime brings into a running container gets the
        // label of that container, whatever its command line said.
        match owner_of(namespace) {
            Some(owner) if owner != label.container => {
                if container::join(owner) {
                    container::leave(label.container);
                    label.container = owner;
                }
            }
            Some(_) => {}
            None => own(namespace, label.container),
        }
    }
    container::start(label.container);
    let root = task.root();
    label.ns = namespace;
    label.root_mnt = root.mount;
    label.root_dentry = root.dentry;
    keep_stdio(task, label);
    label.root_uid = identity::root_of(task);
    label.user_level = task.credentials().namespace().level();
    label.state = State::Contained as u32;
}

/// Keeps what the task has as descriptors 0, 1 and 2.
#[inline(always)]
pub(crate) fn keep_stdio(task: Task, label: &mut Label) {
    let files = task.files();
    for (fd, stdio) in (0..).zip(&mut label.stdio) {
        read_stdio(files, fd, stdio);
    }
}

/// For the verifier on its own, as `path::view_path` is. 0, because it has to have an answer.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_stdio(files: u64, fd: u32, stdio: *mut Stdio) -> u64 {
    // SAFETY: the verifier sees that every caller has one, and wants it to be checked here all the same.
    if let Some(stdio) = unsafe { stdio.as_mut() } {
        *stdio = stdio_of(files, fd);
    }
    0
}

#[inline(always)]
fn stdio_of(files: u64, fd: u32) -> Stdio {
    let Some(file) = file_address(files, fd).and_then(open_file) else {
        return Stdio::default();
    };
    if file.is_directory {
        return Stdio::default();
    }
    let InodeKey { ino, dev, generation: _ } = file.key;
    Stdio { ino, dev, mode: file.mode & 3 }
}

/// An `execve` of container code. The file was opened by a runtime task if this is the first one,
/// so it is judged here and not only in `file_open`.
#[inline(always)]
fn contained(task: Task, label: &'static Label, file: File) -> Answer {
    let Some(subject) = Subject::of(label) else {
        return Answer::Allow;
    };
    if !subject.wants(PolicyFlags::FOREIGN_MOUNT) {
        return Answer::Allow;
    }
    let at = file.location();
    if is_foreign(mount_owner(at.mount), task, label) {
        let answer = subject.deny(Operation::ForeignExec, Object::At(at));
        if answer != Answer::Allow {
            return answer;
        }
    }
    let cwd = task.cwd();
    if is_foreign(mount_owner(cwd.mount), task, label) {
        return subject.deny(Operation::ForeignCwd, Object::At(cwd));
    }
    Answer::Allow
}
