//! BPF programs of lockc: one entry point per hook, each calling one decision
//! function in [`hooks`].
//!
//! Rules of the house: a host task leaves every hook after one task-storage
//! lookup; kernel structures are read in [`kernel`] only; an error denies where
//! a deny rule could apply.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::inline_always,
    reason = "older verifiers follow typed pointers only within one function"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "uprobe arguments are 64-bit registers, and BPF has one pointer width"
)]
#![expect(
    clippy::cast_ptr_alignment,
    reason = "offsets are the kernel's own, so what lies there is aligned"
)]
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one block, with one reason, per access to a map value or event"
)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key passed by value is a copy on the 512-byte stack"
)]
#![expect(clippy::needless_pass_by_value, reason = "an object of a report is used once")]
#![expect(clippy::mut_from_ref, reason = "map values are shared by nature; see TaskStorage")]

mod atomic;
mod container;
mod hooks;
mod kernel;
mod maps;
mod memo;
mod path;
mod registration;
mod report;

use aya_ebpf::{
    EbpfContext as _,
    macros::{fentry, fexit, lsm, uprobe},
    programs::{FEntryContext, FExitContext, LsmContext, ProbeContext},
};

use crate::kernel::{
    Bprm, Credentials, Dentry, File, MemoryArea, Message, Name, Path, Socket, Task, UserNamespace,
};

/// `-EPERM`, from frozen read-only data: the verifier must see a value within
/// [-4095, 0], and a literal is folded into arithmetic whose range it cannot see.
#[unsafe(no_mangle)]
static EPERM: aya_ebpf::Global<i32> = aya_ebpf::Global::new(-1);

/// `-ENOMEM`, for the same reason.
#[unsafe(no_mangle)]
static ENOMEM: aya_ebpf::Global<i32> = aya_ebpf::Global::new(-12);

/// Which argument of `inode_setattr` is the dentry: kernels differ.
#[unsafe(no_mangle)]
static SETATTR_DENTRY: aya_ebpf::Global<u64> = aya_ebpf::Global::new(0);

/// What a hook answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Allow,
    Deny,
    NoMemory,
}

impl Answer {
    #[inline(always)]
    fn errno(self) -> i32 {
        match self {
            Self::Allow => 0,
            Self::Deny => EPERM.load(),
            Self::NoMemory => ENOMEM.load(),
        }
    }
}

// Each entry point reads its arguments and calls one decision function.
#[lsm(hook = "bprm_creds_for_exec")]
fn bprm_creds_for_exec(ctx: LsmContext) -> i32 {
    hooks::exec::creds_for_exec(Bprm::new(ctx.arg(0))).errno()
}

#[lsm(hook = "bprm_committed_creds")]
fn bprm_committed_creds(_ctx: LsmContext) -> i32 {
    hooks::exec::committed_creds();
    0
}

#[lsm(hook = "bprm_check_security")]
fn bprm_check_security(ctx: LsmContext) -> i32 {
    hooks::code::program(Bprm::new(ctx.arg(0))).errno()
}

#[lsm(hook = "mmap_file")]
fn mmap_file(ctx: LsmContext) -> i32 {
    map_file(&ctx, ctx.arg(2), ctx.arg(3))
}

/// Instead of `mmap_file`, for programs that modify return values: the function does not have what the hook has, the
/// protection that results.
#[lsm(hook = "security_mmap_file")]
fn security_mmap_file(ctx: LsmContext) -> i32 {
    map_file(&ctx, hooks::code::implied(ctx.arg(1)), ctx.arg(2))
}

#[inline(always)]
fn map_file(ctx: &LsmContext, protection: u64, flags: u64) -> i32 {
    if !hooks::code::may_matter(protection, flags) {
        return 0;
    }
    // Memory without a file has none: see `task_kill`. Since 6.14 the verifier knows that the argument can be null,
    // and wants to see that it is not.
    let file = File::new(ctx.arg(0));
    if kernel::argument(ctx.as_ptr() as u64, 0) == Some(0) || file.is_null() {
        return 0;
    }
    hooks::code::map(file, protection, flags).errno()
}

#[lsm(hook = "file_mprotect")]
fn file_mprotect(ctx: LsmContext) -> i32 {
    hooks::code::protect(MemoryArea::new(ctx.arg(0)), ctx.arg(2)).errno()
}

#[lsm(hook = "bprm_creds_from_file")]
fn bprm_creds_from_file(ctx: LsmContext) -> i32 {
    hooks::identity::exec(Bprm::new(ctx.arg(0))).errno()
}

#[lsm(hook = "task_fix_setuid")]
fn task_fix_setuid(ctx: LsmContext) -> i32 {
    hooks::identity::set_user(Credentials::new(ctx.arg(0)), Credentials::new(ctx.arg(1))).errno()
}

#[lsm(hook = "userns_create")]
fn userns_create(_ctx: LsmContext) -> i32 {
    hooks::namespace::create_user().errno()
}

#[lsm(hook = "inode_init_security_anon")]
fn inode_init_security_anon(ctx: LsmContext) -> i32 {
    hooks::uring::create(Name::new(ctx.arg(1))).errno()
}

#[lsm(hook = "file_ioctl")]
fn file_ioctl(ctx: LsmContext) -> i32 {
    hooks::terminal::control(ctx.arg::<u32>(1)).errno()
}

#[lsm(hook = "file_ioctl_compat")]
fn file_ioctl_compat(ctx: LsmContext) -> i32 {
    hooks::terminal::control(ctx.arg::<u32>(1)).errno()
}

#[lsm(hook = "task_alloc")]
fn task_alloc(ctx: LsmContext) -> i32 {
    hooks::task::alloc(Task::new(ctx.arg(0))).errno()
}

/// Once per task, and once without one at the end (`struct bpf_iter__task`, `kernel/bpf/task_iter.c`, 6.1).
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn adopt(ctx: *const *const u8) -> i32 {
    // SAFETY: the context has two pointers, and the second is the task.
    let task = Task::new(unsafe { ctx.add(1).read() });
    if !task.is_null() {
        hooks::adopt::task(task);
    }
    0
}

#[lsm(hook = "task_free")]
fn task_free(ctx: LsmContext) -> i32 {
    hooks::task::free(Task::new(ctx.arg(0)));
    0
}

#[lsm(hook = "file_open")]
fn file_open(ctx: LsmContext) -> i32 {
    hooks::file::open(File::new(ctx.arg(0))).errno()
}

#[lsm(hook = "path_truncate")]
fn path_truncate(ctx: LsmContext) -> i32 {
    hooks::change::truncate(Path::new(ctx.arg(0))).errno()
}

#[lsm(hook = "file_truncate")]
fn file_truncate(ctx: LsmContext) -> i32 {
    hooks::change::truncate_open(File::new(ctx.arg(0))).errno()
}

#[lsm(hook = "path_unlink")]
fn path_unlink(ctx: LsmContext) -> i32 {
    hooks::change::unlink(Path::new(ctx.arg(0)), Dentry::new(ctx.arg(1))).errno()
}

#[lsm(hook = "path_rename")]
fn path_rename(ctx: LsmContext) -> i32 {
    const RENAME_EXCHANGE: u32 = 2; // include/uapi/linux/fs.h, 6.12
    hooks::change::rename(
        Path::new(ctx.arg(0)),
        Dentry::new(ctx.arg(1)),
        Path::new(ctx.arg(2)),
        Dentry::new(ctx.arg(3)),
        ctx.arg::<u32>(4) & RENAME_EXCHANGE != 0,
    )
    .errno()
}

#[lsm(hook = "path_link")]
fn path_link(ctx: LsmContext) -> i32 {
    hooks::change::link(Dentry::new(ctx.arg(0)), Path::new(ctx.arg(1)), Dentry::new(ctx.arg(2)))
        .errno()
}

#[lsm(hook = "path_rmdir")]
fn path_rmdir(ctx: LsmContext) -> i32 {
    hooks::change::remove_directory(Path::new(ctx.arg(0)), Dentry::new(ctx.arg(1))).errno()
}

#[lsm(hook = "inode_rmdir")]
fn inode_rmdir(_ctx: LsmContext) -> i32 {
    memo::forget();
    0
}

#[lsm(hook = "path_mkdir")]
fn path_mkdir(ctx: LsmContext) -> i32 {
    hooks::change::make(Path::new(ctx.arg(0)), Dentry::new(ctx.arg(1))).errno()
}

#[lsm(hook = "path_mknod")]
fn path_mknod(ctx: LsmContext) -> i32 {
    hooks::change::make(Path::new(ctx.arg(0)), Dentry::new(ctx.arg(1))).errno()
}

#[lsm(hook = "path_symlink")]
fn path_symlink(ctx: LsmContext) -> i32 {
    hooks::change::make(Path::new(ctx.arg(0)), Dentry::new(ctx.arg(1))).errno()
}

#[lsm(hook = "path_chmod")]
fn path_chmod(ctx: LsmContext) -> i32 {
    hooks::change::attributes(Path::new(ctx.arg(0))).errno()
}

#[lsm(hook = "path_chown")]
fn path_chown(ctx: LsmContext) -> i32 {
    hooks::change::attributes(Path::new(ctx.arg(0))).errno()
}

#[lsm(hook = "inode_setattr")]
fn inode_setattr(ctx: LsmContext) -> i32 {
    let at = SETATTR_DENTRY.load();
    // Always there; 0 is no dentry and has no path.
    let argument = |number| kernel::argument(ctx.as_ptr() as u64, number).unwrap_or(0);
    hooks::change::times(|| (argument(at), argument(at + 1))).errno()
}

#[lsm(hook = "inode_setxattr")]
fn inode_setxattr(ctx: LsmContext) -> i32 {
    hooks::change::extended(Dentry::new(ctx.arg(1)).address()).errno()
}

#[lsm(hook = "inode_removexattr")]
fn inode_removexattr(ctx: LsmContext) -> i32 {
    hooks::change::extended(Dentry::new(ctx.arg(1)).address()).errno()
}

#[lsm(hook = "inode_set_acl")]
fn inode_set_acl(ctx: LsmContext) -> i32 {
    hooks::change::extended(Dentry::new(ctx.arg(1)).address()).errno()
}

#[lsm(hook = "inode_remove_acl")]
fn inode_remove_acl(ctx: LsmContext) -> i32 {
    hooks::change::extended(Dentry::new(ctx.arg(1)).address()).errno()
}

#[lsm(hook = "path_chroot")]
fn path_chroot(_ctx: LsmContext) -> i32 {
    hooks::exec::root_changes();
    0
}

#[lsm(hook = "sb_pivotroot")]
fn sb_pivotroot(ctx: LsmContext) -> i32 {
    hooks::exec::root_changes();
    hooks::mount::pivot_root(Path::new(ctx.arg(1))).errno()
}

#[lsm(hook = "sb_mount")]
fn sb_mount(ctx: LsmContext) -> i32 {
    hooks::mount::mount(Path::new(ctx.arg(1))).errno()
}

#[lsm(hook = "sb_umount")]
fn sb_umount(_ctx: LsmContext) -> i32 {
    hooks::mount::umount().errno()
}

#[lsm(hook = "sb_remount")]
fn sb_remount(_ctx: LsmContext) -> i32 {
    hooks::mount::remount().errno()
}

#[lsm(hook = "sb_kern_mount")]
fn sb_kern_mount(_ctx: LsmContext) -> i32 {
    hooks::mount::create().errno()
}

#[lsm(hook = "move_mount")]
fn move_mount(ctx: LsmContext) -> i32 {
    hooks::mount::move_mount(Path::new(ctx.arg(1))).errno()
}

#[lsm(hook = "capable")]
fn capable(ctx: LsmContext) -> i32 {
    const NO_AUDIT: u32 = 2; // CAP_OPT_NOAUDIT
    let quiet = ctx.arg::<u32>(3) & NO_AUDIT != 0;
    hooks::kernel_call::capable(UserNamespace::new(ctx.arg(1)), ctx.arg(2), quiet).errno()
}

#[lsm(hook = "bpf")]
fn bpf(ctx: LsmContext) -> i32 {
    hooks::kernel_call::bpf(ctx.arg::<u32>(0)).errno()
}

#[lsm(hook = "perf_event_open")]
fn perf_event_open(_ctx: LsmContext) -> i32 {
    hooks::kernel_call::perf_event().errno()
}

#[lsm(hook = "inode_mknod")]
fn inode_mknod(ctx: LsmContext) -> i32 {
    hooks::device::make(ctx.arg::<u16>(2), ctx.arg::<u32>(3)).errno()
}

#[lsm(hook = "ptrace_access_check")]
fn ptrace_access_check(ctx: LsmContext) -> i32 {
    hooks::process::trace(Task::new(ctx.arg(0)), ctx.arg::<u32>(1)).errno()
}

#[lsm(hook = "task_kill")]
fn task_kill(ctx: LsmContext) -> i32 {
    // Read as a number: the verifier takes an argument that is a pointer for one that is never null, and
    // would remove what is done if it is (btf_ctx_access, kernel/bpf/btf.c, 6.12).
    let credentials = || kernel::argument(ctx.as_ptr() as u64, 3);
    hooks::process::signal(Task::new(ctx.arg(0)), credentials).errno()
}

#[lsm(hook = "task_setnice")]
fn task_setnice(ctx: LsmContext) -> i32 {
    hooks::process::schedule(Task::new(ctx.arg(0))).errno()
}

#[lsm(hook = "task_setscheduler")]
fn task_setscheduler(ctx: LsmContext) -> i32 {
    hooks::process::schedule(Task::new(ctx.arg(0))).errno()
}

#[lsm(hook = "task_setrlimit")]
fn task_setrlimit(ctx: LsmContext) -> i32 {
    hooks::process::schedule(Task::new(ctx.arg(0))).errno()
}

#[lsm(hook = "syslog")]
fn syslog(ctx: LsmContext) -> i32 {
    hooks::kernel_log::syslog(ctx.arg::<i32>(0)).errno()
}

#[lsm(hook = "socket_create")]
fn socket_create(ctx: LsmContext) -> i32 {
    let for_kernel = ctx.arg::<u32>(3) != 0;
    hooks::network::create(ctx.arg(0), ctx.arg(1), ctx.arg(2), for_kernel).errno()
}

#[lsm(hook = "socket_connect")]
fn socket_connect(ctx: LsmContext) -> i32 {
    hooks::network::connect(Socket::new(ctx.arg(0)).sock(), ctx.arg::<*const u8>(1) as u64).errno()
}

#[lsm(hook = "socket_sendmsg")]
fn socket_sendmsg(ctx: LsmContext) -> i32 {
    let name = Message::new(ctx.arg(1)).name();
    hooks::network::send(Socket::new(ctx.arg(0)).sock(), name).errno()
}

#[lsm(hook = "socket_bind")]
fn socket_bind(ctx: LsmContext) -> i32 {
    hooks::network::bind(Socket::new(ctx.arg(0)).sock(), ctx.arg::<*const u8>(1) as u64).errno()
}

#[lsm(hook = "socket_listen")]
fn socket_listen(ctx: LsmContext) -> i32 {
    hooks::network::listen(Socket::new(ctx.arg(0)).sock()).errno()
}

#[lsm(hook = "unix_stream_connect")]
fn unix_stream_connect(ctx: LsmContext) -> i32 {
    hooks::unix::connect(ctx.arg::<*const u8>(1) as u64).errno()
}

/// For programs that modify return values.
#[fentry(function = "security_bprm_committing_creds")]
fn security_bprm_committing_creds(ctx: FEntryContext) -> i32 {
    hooks::identity::commit(Bprm::new(ctx.arg(0)));
    0
}

#[fentry(function = "shmem_evict_inode")]
fn shmem_evict_inode(ctx: FEntryContext) -> i32 {
    hooks::code::evict(kernel::Inode::new(ctx.arg(0)));
    0
}

#[fexit(function = "copy_mnt_ns")]
fn copy_mnt_ns(ctx: FExitContext) -> i32 {
    // Arguments: flags, ns, user_ns, new_fs; the fifth slot is the return value.
    hooks::task::mount_namespace_created(ctx.arg(0), ctx.arg(1), ctx.arg(4));
    0
}

#[fexit(function = "mnt_want_write")]
fn mnt_want_write(ctx: FExitContext) -> i32 {
    // Arguments: mnt; the second slot is the return value.
    if ctx.arg::<i32>(1) == 0 {
        hooks::change::begin(ctx.arg(0));
    }
    0
}

#[fexit(function = "mnt_want_write_file")]
fn mnt_want_write_file(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(1) == 0 {
        hooks::change::begin(File::new(ctx.arg(0)).location().mount);
    }
    0
}

#[fexit(function = "mnt_drop_write")]
fn mnt_drop_write(_ctx: FExitContext) -> i32 {
    hooks::change::end();
    0
}

#[fexit(function = "mnt_drop_write_file")]
fn mnt_drop_write_file(_ctx: FExitContext) -> i32 {
    hooks::change::end();
    0
}

#[uprobe]
fn add_container(ctx: ProbeContext) -> u32 {
    registration::add_container(&ctx);
    0
}

#[uprobe]
fn adopt_container(ctx: ProbeContext) -> u32 {
    registration::adopt_container(&ctx);
    0
}

#[uprobe]
fn release_container(ctx: ProbeContext) -> u32 {
    registration::release_container(&ctx);
    0
}

#[uprobe]
fn add_process(ctx: ProbeContext) -> u32 {
    registration::add_process(&ctx);
    0
}

#[uprobe]
fn delete_container(ctx: ProbeContext) -> u32 {
    registration::delete_container(&ctx);
    0
}

#[uprobe]
fn add_file(ctx: ProbeContext) -> u32 {
    registration::add_file(&ctx);
    0
}

#[uprobe]
fn set_policy(ctx: ProbeContext) -> u32 {
    registration::set_policy(&ctx);
    0
}

#[uprobe]
fn move_container(ctx: ProbeContext) -> u32 {
    registration::move_container(&ctx);
    0
}

#[uprobe]
fn lower_clock(ctx: ProbeContext) -> u32 {
    registration::lower_clock(&ctx);
    0
}

#[uprobe]
fn enter_self_test(ctx: ProbeContext) -> u32 {
    registration::enter_self_test(&ctx);
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel only lets GPL-compatible programs call the helpers used here.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
