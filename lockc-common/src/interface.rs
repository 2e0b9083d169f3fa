//! Files that steer the kernel of the whole machine, told by the type of their file system and their
//! place in it: decisions without a kernel.

#![expect(
    clippy::inline_always,
    reason = "the programs call these on the verifier's terms: within one function"
)]

/// The first 16 bytes of a file name, zero-padded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Name(pub [u64; 2]);

impl Name {
    /// From 16 bytes as they lie in memory, of which `len` belong to the name.
    #[inline(always)]
    pub const fn cut(bytes: [u64; 2], len: u32) -> Self {
        let [low, high] = bytes;
        Self([low & mask(len), high & mask(len.saturating_sub(8))])
    }

    /// A name of at most 16 bytes.
    ///
    /// # Panics
    ///
    /// If it is longer; for constants, that is when they are compiled.
    pub const fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        assert!(bytes.len() <= 16, "the name is too long");
        let (mut words, mut at) = ([0; 2], 0);
        while at < bytes.len() {
            words[at / 8] |= (bytes[at] as u64) << (8 * (at % 8));
            at += 1;
        }
        Self(words)
    }

    /// Whether it begins with a digit, as the directories of processes do.
    #[inline(always)]
    pub const fn is_number(self) -> bool {
        matches!(self.0[0] & 0xff, 0x30..=0x39)
    }
}

/// The bits of a little-endian word that its first `len` bytes take.
#[inline(always)]
const fn mask(len: u32) -> u64 {
    if len >= 8 { u64::MAX } else { (1 << (8 * len)) - 1 }
}

/// A kind of file system, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// procfs: it depends on the place, see [`procfs`].
    Proc,
    /// Control groups of version 1: see [`cgroup1`].
    Cgroup1,
    /// What is written there changes the machine.
    Settings,
    /// What is there shows or changes the inside of the kernel.
    Internals,
    /// Anything else.
    Other,
}

impl FileSystem {
    /// By the magic number in its superblock (`include/uapi/linux/magic.h`, 6.12; configfs:
    /// `fs/configfs/mount.c`).
    #[inline(always)]
    pub const fn of_magic(magic: u64) -> Self {
        match magic {
            0x9fa0 => Self::Proc,
            0x0027_e0eb => Self::Cgroup1,
            // sysfs, securityfs, binfmt_misc, configfs
            0x6265_6572 | 0x7363_6673 | 0x4249_4e4d | 0x6265_6570 => Self::Settings,
            // debugfs, tracefs, bpffs, efivarfs, pstore
            0x6462_6720 | 0x7472_6163 | 0xcafe_4a11 | 0xde5e_81e4 | 0x6165_676c => Self::Internals,
            _ => Self::Other,
        }
    }

    /// Whether making, removing or renaming something there changes the machine.
    #[inline(always)]
    pub const fn is_kernels(self) -> bool {
        matches!(self, Self::Settings | Self::Internals)
    }
}

/// Whether a file of procfs steers the machine: `top` is the first name below its root, `second` and
/// `third` are those below that, and empty where there is none.
///
/// What belongs to a process is not meant, nor what the network, IPC, UTS and PID namespaces have of their own
/// (`/proc/sys` in `namespaces(7)`, `proc_sys_net(5)`, man-pages 6.9).
#[inline(always)]
pub fn procfs(top: Name, second: Name, third: Name, writes: bool) -> bool {
    if top == const { Name::of("kcore") } {
        return true; // all memory
    }
    if !writes || top.is_number() || top == const { Name::of("pressure") } {
        return false;
    }
    if top != const { Name::of("sys") } {
        return true;
    }
    if second == const { Name::of("net") } {
        return false;
    }
    if second == const { Name::of("fs") } {
        return third != const { Name::of("mqueue") };
    }
    second != const { Name::of("kernel") } || !is_namespaced(third)
}

/// Whether a file of `/proc/sys/kernel` is of the IPC, UTS or PID namespace (`ipc/ipc_sysctl.c`,
/// `kernel/utsname_sysctl.c`, `kernel/pid_namespace.c`, 6.12).
#[inline(always)]
fn is_namespaced(name: Name) -> bool {
    name == const { Name::of("hostname") }
        || name == const { Name::of("domainname") }
        || name == const { Name::of("msgmax") }
        || name == const { Name::of("msgmnb") }
        || name == const { Name::of("msgmni") }
        || name == const { Name::of("msg_next_id") }
        || name == const { Name::of("sem") }
        || name == const { Name::of("sem_next_id") }
        || name == const { Name::of("shmall") }
        || name == const { Name::of("shmmax") }
        || name == const { Name::of("shmmni") }
        || name == const { Name::of("shm_next_id") }
        || name == const { Name::of("shm_rmid_forced") }
        || name == const { Name::of("ns_last_pid") }
}

/// Whether writing a file of a version 1 control group reaches beyond the group: its name.
#[inline(always)]
pub fn cgroup1(name: Name) -> bool {
    name == const { Name::of("release_agent") }
        || name == const { Name::of("devices.allow") }
        || name == const { Name::of("devices.deny") }
}

/// Whether a device gives the memory or the ports of the machine: `/dev/mem`, `/dev/kmem`, `/dev/port`
/// (`Documentation/admin-guide/devices.txt`, 6.12). In the kernel's encoding (`MKDEV`: 20 bits of minor).
#[inline(always)]
pub const fn is_memory(device: u32) -> bool {
    matches!((device >> 20, device & 0xf_ffff), (1, 1 | 2 | 4))
}

/// Whether a container may make a character device: those that engines give every container (OCI
/// runtime-spec, `config-linux.md`, "Default Devices", 1.2), and the whiteout of overlay file systems, 0:0.
#[inline(always)]
pub const fn may_be_made(device: u32) -> bool {
    matches!((device >> 20, device & 0xf_ffff), (0, 0) | (1, 3 | 5 | 7 | 8 | 9) | (5, 0..=2))
}

/// Capabilities that act on the whole machine, as a set of bits (`capabilities(7)`, man-pages 6.9):
/// `CAP_SYS_MODULE`, `CAP_SYS_RAWIO`, `CAP_SYS_PACCT`, `CAP_SYS_BOOT`, `CAP_SYS_TIME`, `CAP_MAC_OVERRIDE`,
/// `CAP_MAC_ADMIN`, `CAP_SYSLOG`, `CAP_PERFMON` and `CAP_BPF`.
pub const MACHINE_CAPABILITIES: u64 = 1 << 16
    | 1 << 17
    | 1 << 20
    | 1 << 22
    | 1 << 25
    | 1 << 32
    | 1 << 33
    | 1 << 34
    | 1 << 38
    | 1 << 39;

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str, writes: bool) -> bool {
        let mut names = path.split('/').map(|name| {
            let mut bytes = [0_u8; 16];
            let len = name.len().min(16);
            bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
            // What lies behind a name in memory is not zero.
            bytes[len..].fill(b'x');
            let half = |at: usize| {
                let mut word = [0; 8];
                word.copy_from_slice(&bytes[at..at + 8]);
                u64::from_le_bytes(word)
            };
            Name::cut([half(0), half(8)], u32::try_from(name.len()).unwrap())
        });
        let mut next = || names.next().unwrap_or_default();
        procfs(next(), next(), next(), writes)
    }

    #[test]
    fn what_steers_the_machine() {
        for path in [
            "sys/kernel/core_pattern",
            "sys/kernel/modprobe",
            "sys/kernel/hostname2",
            "sys/kernel/sem_next_id_of_all",
            "sys/kernel/random/boot_id",
            "sys/fs/binfmt_misc/register",
            "sys/vm/overcommit_memory",
            "sys/user/max_user_namespaces",
            "sysrq-trigger",
            "sysrq-trigger-and-more",
            "irq/1/smp_affinity",
            "sys",
            "",
        ] {
            assert!(place(path, true), "{path}");
            assert!(!place(path, false), "reading {path}");
        }
        assert!(place("kcore", false) && place("kcore", true));
    }

    #[test]
    fn what_belongs_to_the_container() {
        for path in [
            "1/attr/exec",
            "4711/oom_score_adj",
            "sys/net/ipv4/ip_forward",
            "sys/kernel/hostname",
            "sys/kernel/shm_rmid_forced",
            "sys/kernel/sem",
            "sys/fs/mqueue/msg_max",
            "pressure/cpu",
        ] {
            assert!(!place(path, true), "{path}");
        }
    }

    #[test]
    fn names_are_compared_as_a_whole() {
        let bytes = [u64::from_le_bytes(*b"release_"), u64::from_le_bytes(*b"agentxyz")];
        assert!(cgroup1(Name::cut(bytes, 13)));
        assert!(!cgroup1(Name::cut(bytes, 14)) && !cgroup1(Name::cut(bytes, 12)));
        assert!(!cgroup1(Name::cut(bytes, 300)) && !cgroup1(Name::cut(bytes, 0)));
    }

    #[test]
    fn devices() {
        let device = |major: u32, minor: u32| major << 20 | minor;
        assert!(is_memory(device(1, 1)) && is_memory(device(1, 4)));
        assert!(!is_memory(device(1, 3)) && !is_memory(device(10, 1)));
        assert!(
            may_be_made(device(0, 0)) && may_be_made(device(1, 3)) && may_be_made(device(5, 2))
        );
        assert!(
            !may_be_made(device(1, 1)) && !may_be_made(device(1, 11)) && !may_be_made(device(8, 0))
        );
    }
}
