//! What this machine must offer before anything is loaded.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{
    backend::{Backend, Wanted},
    recursion::{self, Model},
};

/// Where the kernel lists its security modules.
const LSM_LIST: &str = "/sys/kernel/security/lsm";
/// Where the kernel offers its type information.
pub const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";
/// The security module of BPF, as the kernel lists it.
const BPF: &str = "bpf";
/// Skips the check of the list (not the self-test), for kernels that hide it.
pub const SKIP_LSM_CHECK: &str = "LOCKC_CHECK_LSM_SKIP";
/// Link to this process's PID namespace.
const PID_NAMESPACE: &str = "/proc/self/ns/pid";
const MOUNT_PROCFS: &str = "mount procfs on /proc";
/// Inode number of the initial PID namespace (`PROC_PID_INIT_INO`, `include/linux/proc_ns.h`).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Why lockc cannot protect this machine.
#[derive(Debug, Error)]
pub enum HostError {
    /// Not root.
    #[error("lockc must run as root, not as uid {uid}")]
    NotRoot {
        /// Effective user id.
        uid: u32,
    },
    /// In a PID namespace of its own: thread ids would not be the kernel's.
    #[error("lockc must run in the initial PID namespace, not in {found}")]
    PidNamespace {
        /// Target of `/proc/self/ns/pid`.
        found: String,
    },
    /// Hooks could be skipped.
    #[error(
        "this kernel ({release}) can skip hooks, as it {} and is older than 6.2; {}",
        if *.known { "is fully preemptible" } else { "does not tell whether it is fully preemptible" },
        recursion::REMEDY
    )]
    SkipsHooks {
        /// `uname -r`.
        release: String,
        /// Whether it is known that it is fully preemptible.
        known: bool,
    },
    /// The list of security modules has no `bpf`: programs would load and never run.
    #[error(
        "BPF LSM is not enabled: {LSM_LIST} lists \"{list}\"; {}, or set backend = \"auto\" in [daemon]",
        boot_parameter(list)
    )]
    NoBpfLsm {
        /// What the kernel lists.
        list: String,
    },
    /// Something would not be enforced, and all is required.
    #[error(
        "with backend modify_return this kernel cannot enforce everything: {gap}; {}, or, to do without, set \
         require_full = false in [daemon]",
        boot_parameter(list)
    )]
    NotFull {
        /// What.
        gap: String,
        /// What the kernel lists as security modules.
        list: String,
    },
    /// A file that tells about the kernel is not readable.
    #[error("cannot read {}: {source}; {remedy}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// How to make the kernel run BPF LSM programs.
fn boot_parameter(list: &str) -> String {
    format!(
        "add \"bpf\" to the lsm= boot parameter (lsm={list},bpf): with GRUB in \
         GRUB_CMDLINE_LINUX in /etc/default/grub, then run update-grub; with systemd-boot in \
         /etc/kernel/cmdline, then make the boot entries anew, see kernel-install(8); on a \
         Raspberry Pi in the one line of /boot/firmware/cmdline.txt; then reboot"
    )
}

/// Something about this machine, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// What was found.
    pub found: String,
    /// What to do, if lockc cannot work like this.
    pub remedy: Option<String>,
}

/// Looks at everything that [`check`] would refuse, and at the kernel itself, without stopping at
/// the first thing that is missing.
pub fn examine(wanted: Wanted, require_full: bool) -> Vec<Finding> {
    let mut findings = vec![user(), pid_namespace()];
    let mut add = |what: &str, found: String, remedy: Option<String>| {
        findings.push(Finding { what: what.to_owned(), found, remedy });
    };
    let text = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let release = text("/proc/sys/kernel/osrelease").unwrap_or_else(|error| error.to_string());
    let release_name = release.clone();
    let runs_lsm = security_modules()
        .is_ok_and(|list| choose(wanted, &list, || Model::Unknown).backend == Backend::Lsm);
    let remedy = if is_supported(&release) {
        let skips = runs_lsm && check_preemption(&release).is_err();
        skips.then(|| recursion::REMEDY.to_owned())
    } else {
        Some(format!("use a kernel from {}.{} on", OLDEST.0, OLDEST.1))
    };
    add("kernel", release, remedy);
    let btf = match fs::metadata(VMLINUX_BTF) {
        Ok(_) => (VMLINUX_BTF.to_owned(), None),
        Err(error) => (
            format!("{VMLINUX_BTF}: {error}"),
            Some("use a kernel built with CONFIG_DEBUG_INFO_BTF=y".to_owned()),
        ),
    };
    add("BTF", btf.0, btf.1);
    match security_modules() {
        Ok(list) => {
            let choice = choose(wanted, &list, || recursion::model(&release_name));
            let needs_bpf = choice.backend == Backend::Lsm && !has_bpf(&list);
            add("security modules", list.clone(), needs_bpf.then(|| boot_parameter(&list)));
            let remedy = (require_full && !choice.gaps.is_empty()).then(|| boot_parameter(&list));
            let Choice { backend, reason, gaps } = choice;
            let said = [format!("{}, as {reason}", backend.name())];
            let said: Vec<String> = said.into_iter().chain(gaps).collect();
            add("backend", said.join("; "), remedy);
        }
        Err(error) => {
            let remedy = "mount securityfs on /sys/kernel/security".to_owned();
            add("security modules", error.to_string(), Some(remedy));
            add("backend", "unknown".to_owned(), None);
        }
    }
    let command_line = text("/proc/cmdline").unwrap_or_default();
    let parameter = command_line.split_ascii_whitespace().rfind(|it| it.starts_with("lsm="));
    add("boot parameter", parameter.unwrap_or("no lsm=").to_owned(), None);
    findings
}

/// The user that this process is. `check` is asked by other users too; the daemon is started by root.
fn user() -> Finding {
    let uid = nix::unistd::geteuid();
    let remedy = (!uid.is_root()).then(|| "run it as root, as the daemon must be".to_owned());
    Finding { what: "user".to_owned(), found: uid.to_string(), remedy }
}

fn pid_namespace() -> Finding {
    let (found, remedy) = match fs::read_link(PID_NAMESPACE) {
        Ok(found) if found == Path::new(INITIAL_PID_NAMESPACE) => ("initial".to_owned(), None),
        Ok(found) => (
            found.display().to_string(),
            Some(
                "run lockc on the host, not in a container, or with its PID namespace (--pid=host)",
            ),
        ),
        Err(error) => (format!("{PID_NAMESPACE}: {error}"), Some(MOUNT_PROCFS)),
    };
    let remedy = remedy.map(str::to_owned);
    Finding { what: "PID namespace".to_owned(), found, remedy }
}

/// Oldest kernel that is supported (docs/kernel-support.md).
const OLDEST: (u32, u32) = (6, 1);

/// Whether the text of `uname -r` names a supported kernel; one that cannot be read does not.
fn is_supported(release: &str) -> bool {
    version(release).is_some_and(|version| version >= OLDEST)
}

/// Major and minor number in the text of `uname -r`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    }
}

/// Release of this kernel; nothing if it cannot be read.
pub fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Whether the end of a task may go uncounted by LSM programs on this kernel: those whose version cannot be read are
/// taken for such.
pub fn loses_tasks() -> bool {
    version(&release()).is_none_or(recursion::can_skip)
}

/// Checks that no hook can be skipped.
fn check_preemption(release: &str) -> Result<(), HostError> {
    if version(release).is_some_and(|version| !recursion::can_skip(version)) {
        return Ok(());
    }
    let known = match recursion::model(release) {
        Model::Voluntary => return Ok(()),
        Model::Full => true,
        Model::Unknown => false,
    };
    Err(HostError::SkipsHooks { release: release.to_owned(), known })
}

/// How the decisions are to get into this kernel, and what they cannot enforce there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The backend.
    pub backend: Backend,
    /// Why that one.
    pub reason: &'static str,
    /// For people; empty if everything is enforced.
    pub gaps: Vec<String>,
}

/// Checks user, namespace, list of security modules and preemption, and chooses how the decisions get into the kernel.
pub fn check(wanted: Wanted, require_full: bool) -> Result<Choice, HostError> {
    let uid = nix::unistd::geteuid();
    if !uid.is_root() {
        return Err(HostError::NotRoot { uid: uid.as_raw() });
    }
    let namespace = fs::read_link(PID_NAMESPACE).map_err(|source| HostError::Unreadable {
        path: PID_NAMESPACE.into(),
        remedy: MOUNT_PROCFS,
        source,
    })?;
    if namespace != Path::new(INITIAL_PID_NAMESPACE) {
        return Err(HostError::PidNamespace { found: namespace.display().to_string() });
    }
    let list = security_modules()?;
    let model = || recursion::model(&release());
    let choice = choose(wanted, &list, model);
    if choice.backend == Backend::Lsm {
        check_list(&list)?;
        check_preemption(&release())?;
    }
    match choice.gaps.first() {
        Some(gap) if require_full => Err(HostError::NotFull { gap: gap.clone(), list }),
        _ => Ok(choice),
    }
}

/// What the kernel lists; `bpf` where it hides the list and [`SKIP_LSM_CHECK`] is set.
fn security_modules() -> Result<String, HostError> {
    if std::env::var_os(SKIP_LSM_CHECK).is_some() {
        return Ok(BPF.to_owned());
    }
    let list = fs::read_to_string(LSM_LIST).map_err(|source| HostError::Unreadable {
        path: LSM_LIST.into(),
        remedy: "mount securityfs on /sys/kernel/security",
        source,
    })?;
    Ok(list.trim().to_owned())
}

fn has_bpf(list: &str) -> bool {
    list.split(',').any(|module| module == BPF)
}

fn check_list(list: &str) -> Result<(), HostError> {
    if has_bpf(list) { Ok(()) } else { Err(HostError::NoBpfLsm { list: list.to_owned() }) }
}

fn choose(wanted: Wanted, list: &str, model: impl FnOnce() -> Model) -> Choice {
    let (backend, reason) = match wanted {
        Wanted::Only(backend) => (backend, "it is configured"),
        Wanted::Auto if has_bpf(list) => (Backend::Lsm, "bpf is among the security modules"),
        Wanted::Auto => (Backend::ModifyReturn, "bpf is not among the security modules"),
    };
    let gaps = match backend {
        Backend::Lsm => Vec::new(),
        Backend::ModifyReturn => recursion::gap(model()).into_iter().collect(),
    };
    Choice { backend, reason, gaps }
}

/// Reads the kernel's type information.
pub fn read_btf() -> Result<Vec<u8>, HostError> {
    fs::read(VMLINUX_BTF).map_err(|source| HostError::Unreadable {
        path: VMLINUX_BTF.into(),
        remedy: "use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_bpf_names_the_boot_parameter() {
        assert!(check_list("lockdown,capability,bpf").is_ok());
        let message = check_list("capability,bpfx").unwrap_err().to_string();
        assert!(message.contains("lsm=capability,bpfx,bpf"), "{message}");
        assert!(message.contains("/etc/default/grub"), "{message}");
        assert!(message.contains("backend = \"auto\""), "{message}");
    }

    #[test]
    fn the_backend_is_the_one_that_the_kernel_runs() {
        use Backend::{Lsm, ModifyReturn};
        let stock = "lockdown,capability,landlock,apparmor";
        for (wanted, list, model, backend, gaps) in [
            (Wanted::Auto, "capability,bpf", Model::Full, Lsm, 0),
            (Wanted::Auto, stock, Model::Voluntary, ModifyReturn, 0),
            (Wanted::Auto, stock, Model::Full, ModifyReturn, 1),
            (Wanted::Auto, stock, Model::Unknown, ModifyReturn, 1),
            (Wanted::Only(Lsm), stock, Model::Voluntary, Lsm, 0),
            (Wanted::Only(ModifyReturn), "bpf", Model::Voluntary, ModifyReturn, 0),
            (Wanted::Only(ModifyReturn), "bpf", Model::Full, ModifyReturn, 1),
        ] {
            let choice = choose(wanted, list, || model);
            assert_eq!((choice.backend, choice.gaps.len()), (backend, gaps), "{wanted:?} {list}");
        }
    }

    #[test]
    fn kernels() {
        for (release, expected) in [
            ("6.1.0-18-amd64", true),
            ("6.0.19", false),
            ("5.15.0", false),
            ("7.0-rc1", true),
            ("6", false),
            ("unknown", false),
        ] {
            assert_eq!(is_supported(release), expected, "{release}");
        }
    }

    #[test]
    fn an_examination_says_something_about_everything() {
        let findings = examine(Wanted::Auto, true);
        let what: Vec<&str> = findings.iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(
            what,
            [
                "user",
                "PID namespace",
                "kernel",
                "BTF",
                "security modules",
                "backend",
                "boot parameter"
            ]
        );
    }
}
