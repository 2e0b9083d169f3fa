//! Which kernel fields the programs read: the single source of their offsets.

use thiserror::Error;

use super::btf::Btf;

/// One offset global of `lockc-ebpf/src/kernel.rs`.
#[derive(Debug)]
pub struct Field {
    /// Name of the global.
    pub global: &'static str,
    /// Structure and member path; the first that exists counts. Alternatives are the same field
    /// under the names that different kernels give it. Without a member path the global is the
    /// structure's size.
    pub names: &'static [(&'static str, &'static str)],
    /// Size in bytes that the programs read; 0 for any size.
    pub size: u64,
}

const fn field(
    global: &'static str,
    names: &'static [(&'static str, &'static str)],
    size: u64,
) -> Field {
    Field { global, names, size }
}

/// Every field is required: without one of them a check would be missing, so lockc refuses to
/// start and names it.
pub const FIELDS: &[Field] = &[
    field("OFF_BPRM_CRED", &[("linux_binprm", "cred")], 8),
    field("OFF_BPRM_FILE", &[("linux_binprm", "file")], 8),
    field("OFF_CRED_CAP_PERMITTED", &[("cred", "cap_permitted")], 8),
    field("OFF_CRED_EUID", &[("cred", "euid")], 4),
    field("OFF_CRED_FSUID", &[("cred", "fsuid")], 4),
    field("OFF_CRED_SUID", &[("cred", "suid")], 4),
    field("OFF_CRED_UID", &[("cred", "uid")], 4),
    field("OFF_CRED_USER_NS", &[("cred", "user_ns")], 8),
    field("OFF_DENTRY_FLAGS", &[("dentry", "d_flags")], 4),
    field("OFF_DENTRY_HASH", &[("dentry", "d_hash.pprev")], 8),
    field("OFF_DENTRY_INODE", &[("dentry", "d_inode")], 8),
    field("OFF_DENTRY_NAME", &[("dentry", "d_name.name")], 8),
    field("OFF_DENTRY_NAME_LEN", &[("dentry", "d_name.len")], 4),
    field("OFF_DENTRY_PARENT", &[("dentry", "d_parent")], 8),
    field("OFF_DENTRY_SB", &[("dentry", "d_sb")], 8),
    field("OFF_FDTABLE_FD", &[("fdtable", "fd")], 8),
    field("OFF_FDTABLE_MAX_FDS", &[("fdtable", "max_fds")], 4),
    field("OFF_FILES_FDT", &[("files_struct", "fdt")], 8),
    field("OFF_FILE_FLAGS", &[("file", "f_flags")], 4),
    field("OFF_FILE_INODE", &[("file", "f_inode")], 8),
    field("OFF_FILE_MODE", &[("file", "f_mode")], 4),
    field("OFF_FILE_PATH", &[("file", "f_path")], 16),
    field("OFF_FS_PWD", &[("fs_struct", "pwd")], 16),
    field("OFF_FS_ROOT", &[("fs_struct", "root")], 16),
    // 6.6 renamed the change time, 6.11 took it apart.
    field(
        "OFF_INODE_CTIME_NSEC",
        &[("inode", "i_ctime_nsec"), ("inode", "__i_ctime.tv_nsec"), ("inode", "i_ctime.tv_nsec")],
        0,
    ),
    field(
        "OFF_INODE_CTIME_SEC",
        &[("inode", "i_ctime_sec"), ("inode", "__i_ctime.tv_sec"), ("inode", "i_ctime.tv_sec")],
        8,
    ),
    field("OFF_INODE_END", &[("inode", "")], 0),
    field("OFF_INODE_FLAGS", &[("inode", "i_flags")], 4),
    field("OFF_IATTR_VALID", &[("iattr", "ia_valid")], 4),
    field("OFF_IDMAP_EXTENT", &[("uid_gid_map", "extent")], 60),
    field("OFF_IDMAP_EXTENTS", &[("uid_gid_map", "nr_extents")], 4),
    field("OFF_IDMAP_FORWARD", &[("uid_gid_map", "forward")], 8),
    field("OFF_INODE_GENERATION", &[("inode", "i_generation")], 4),
    field("OFF_INODE_INO", &[("inode", "i_ino")], 8),
    field("OFF_INODE_MODE", &[("inode", "i_mode")], 2),
    field("OFF_INODE_NLINK", &[("inode", "i_nlink")], 4),
    field("OFF_INODE_RDEV", &[("inode", "i_rdev")], 4),
    field("OFF_INODE_SB", &[("inode", "i_sb")], 8),
    // 6.18 moved the sequence number of mount namespaces to a unique id of every namespace.
    field("OFF_MNTNS_SEQ", &[("mnt_namespace", "seq"), ("mnt_namespace", "ns.ns_id")], 8),
    field("OFF_MOUNT_MNT", &[("mount", "mnt")], 0),
    field("OFF_MOUNT_MOUNTPOINT", &[("mount", "mnt_mountpoint")], 8),
    field("OFF_MOUNT_NS", &[("mount", "mnt_ns")], 8),
    field("OFF_MOUNT_PARENT", &[("mount", "mnt_parent")], 8),
    field("OFF_MSGHDR_NAME", &[("msghdr", "msg_name")], 8),
    field("OFF_NSPROXY_MNT", &[("nsproxy", "mnt_ns")], 8),
    field("OFF_NSPROXY_PID", &[("nsproxy", "pid_ns_for_children")], 8),
    field("OFF_PATH_DENTRY", &[("path", "dentry")], 8),
    field("OFF_PATH_MNT", &[("path", "mnt")], 8),
    field("OFF_PIDNS_LEVEL", &[("pid_namespace", "level")], 4),
    // x86_64 and arm64. On arm64 the register is half as wide; the programs read what both have.
    field("OFF_PT_REGS_SYSCALL", &[("pt_regs", "orig_ax"), ("pt_regs", "syscallno")], 0),
    field("OFF_QSTR_NAME", &[("qstr", "name")], 8),
    field("OFF_SB_DEV", &[("super_block", "s_dev")], 4),
    field("OFF_SB_MAGIC", &[("super_block", "s_magic")], 8),
    field("OFF_SOCKET_SK", &[("socket", "sk")], 8),
    field("OFF_SOCK_FAMILY", &[("sock", "__sk_common.skc_family")], 2),
    field("OFF_SOCK_NUM", &[("sock", "__sk_common.skc_num")], 2),
    field("OFF_SOCK_RCV_SADDR", &[("sock", "__sk_common.skc_rcv_saddr")], 4),
    field("OFF_SOCK_V6_RCV_SADDR", &[("sock", "__sk_common.skc_v6_rcv_saddr")], 16),
    // x86_64 and arm64: flags, of which one tells a system call of a 32-bit program. As above.
    field(
        "OFF_TASK_ABI",
        &[("task_struct", "thread_info.status"), ("task_struct", "thread_info.flags")],
        0,
    ),
    field("OFF_TASK_BPF_STORAGE", &[("task_struct", "bpf_storage")], 8),
    field("OFF_TASK_CRED", &[("task_struct", "cred")], 8),
    field("OFF_TASK_FILES", &[("task_struct", "files")], 8),
    field("OFF_TASK_FS", &[("task_struct", "fs")], 8),
    field("OFF_TASK_GROUP_LEADER", &[("task_struct", "group_leader")], 8),
    field("OFF_TASK_NSPROXY", &[("task_struct", "nsproxy")], 8),
    field("OFF_TASK_PERSONALITY", &[("task_struct", "personality")], 4),
    field("OFF_TASK_REAL_CRED", &[("task_struct", "real_cred")], 8),
    field("OFF_TASK_REAL_PARENT", &[("task_struct", "real_parent")], 8),
    field("OFF_TASK_START_BOOTTIME", &[("task_struct", "start_boottime")], 8),
    field("OFF_TASK_TGID", &[("task_struct", "tgid")], 4),
    field("OFF_UNIX_ADDRESS_NAME", &[("unix_address", "name")], 0),
    field("OFF_UNIX_SOCK_ADDR", &[("unix_sock", "addr")], 8),
    field("OFF_UNIX_SOCK_PATH", &[("unix_sock", "path")], 16),
    field("OFF_USERNS_LEVEL", &[("user_namespace", "level")], 4),
    field("OFF_USERNS_UID_MAP", &[("user_namespace", "uid_map")], 0),
    field("OFF_VFSMOUNT_FLAGS", &[("vfsmount", "mnt_flags")], 4),
    field("OFF_VFSMOUNT_ROOT", &[("vfsmount", "mnt_root")], 8),
    field("OFF_VMA_FILE", &[("vm_area_struct", "vm_file")], 8),
    field("OFF_VMA_FLAGS", &[("vm_area_struct", "vm_flags")], 8),
    field("OFF_VFSMOUNT_SB", &[("vfsmount", "mnt_sb")], 8),
];

/// A field that this kernel does not have as the programs need it.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LayoutError {
    /// No structure of that name has the member.
    #[error("the kernel's BTF has no {field}, which lockc needs; use a kernel from 6.1 on")]
    Missing {
        /// Structure and member.
        field: String,
    },
    /// The member is there, with another size.
    #[error("{field} has {found} bytes in this kernel, lockc knows it with {expected}")]
    Size {
        /// Structure and member.
        field: String,
        /// Bytes in this kernel.
        found: u64,
        /// Bytes the programs read.
        expected: u64,
    },
}

/// Offsets of all [`FIELDS`] in bytes, in their order.
pub fn resolve(btf: &Btf<'_>) -> Result<Vec<u64>, LayoutError> {
    FIELDS.iter().map(|field| resolve_one(btf, field)).collect()
}

fn resolve_one(btf: &Btf<'_>, field: &Field) -> Result<u64, LayoutError> {
    for (structure, path) in field.names {
        let Some(member) = btf.member(structure, path) else {
            continue;
        };
        if field.size != 0 && member.size != field.size {
            return Err(LayoutError::Size {
                field: format!("{structure}.{path}"),
                found: member.size,
                expected: field.size,
            });
        }
        return Ok(member.offset);
    }
    let names: Vec<_> = field.names.iter().map(|(s, p)| format!("{s}.{p}")).collect();
    Err(LayoutError::Missing { field: names.join(" or ") })
}
