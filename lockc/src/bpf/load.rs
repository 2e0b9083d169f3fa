//! Loading and attaching the programs.

use std::{collections::HashSet, fs, io, path::PathBuf};

use aya::{
    Btf, Ebpf, EbpfLoader, VerifierLogLevel, include_bytes_aligned,
    programs::{Program, uprobe::UProbeScope},
};
use lockc_common::SELF_TEST;
use thiserror::Error;

use super::{
    backend::Backend,
    btf::{self, BtfError},
    calls,
    host::{self, HostError, VMLINUX_BTF},
    layout::{self, FIELDS, LayoutError},
    locks::Locks,
    modify_return::Programs,
    pin::{PinError, Pins},
    shape::PINNED_MAPS,
};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lockc-ebpf"));

/// Hooks that not every kernel has. Where one is missing, another sees the same, or there is nothing to see:
/// docs/kernel-support.md.
const OPTIONAL_HOOKS: &[&str] =
    &["file_ioctl_compat", "file_truncate", "inode_remove_acl", "inode_set_acl"];

/// Why the programs are not in force.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The machine lacks something.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The kernel's type information cannot be used.
    #[error("cannot use {VMLINUX_BTF}: {0}")]
    Btf(#[from] BtfError),
    /// A field is missing.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Paths of the host have no place on a file system.
    #[error(transparent)]
    HostPath(#[from] crate::policy::HostError),
    /// A pin cannot be made.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The object or one of its maps.
    #[error("cannot load the BPF object: {}", chain(&**.0))]
    Object(#[from] Box<aya::EbpfError>),
    /// The kernel's type information, as aya reads it.
    #[error("cannot use {VMLINUX_BTF}: {0}")]
    KernelBtf(#[from] aya::BtfError),
    /// The kernel refuses a program.
    #[error("cannot {action} BPF program {name}: {}", chain(&**.source))]
    Program {
        /// Its name, which is the name of its hook.
        name: String,
        /// `relocate`, `load`, `attach` or `pin`.
        action: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A map that the daemon needs cannot be used.
    #[error("cannot use BPF map {name}: {reason}")]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// A function of this binary has no place in its file.
    #[error("cannot find function {name} in /proc/self/maps")]
    Call {
        /// The function.
        name: &'static str,
    },
    /// A file of this process cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// An error with its causes: aya keeps the kernel's answer in the innermost one.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

pub(super) fn program_error<E>(name: &str, action: &'static str) -> impl FnOnce(E) -> LoadError
where
    E: std::error::Error + Send + Sync + 'static,
{
    let name = name.to_owned();
    move |source| LoadError::Program { name, action, source: Box::new(source) }
}

/// The loaded object, its pins, and the handle of its self-test.
#[derive(Debug)]
pub struct Kernel {
    pub(super) ebpf: Ebpf,
    pub(super) pins: Pins,
    /// How the decisions get into the kernel.
    pub(super) backend: Backend,
    /// Programs of [`Backend::ModifyReturn`].
    pub(super) modify_return: Option<Programs>,
    /// Those of [`OPTIONAL_HOOKS`] that this kernel does not have.
    pub(super) missing_hooks: Vec<&'static str>,
    /// Names of the programs that are attached and pinned.
    pub(super) attached: HashSet<String>,
    /// Handle of the self-test's container.
    pub(super) self_test: u64,
}

impl Kernel {
    /// Loads everything, and attaches and pins what every policy needs. From here on these programs run,
    /// beside those of an earlier daemon: what either denies is denied.
    pub fn load(backend: Backend) -> Result<Self, LoadError> {
        let layout = Layout::read(backend)?;
        let pins = Pins::prepare()?;
        let self_test = SELF_TEST | u64::from(std::process::id());
        let loaded = Self::load_with(&pins, &layout, self_test, backend);
        let (ebpf, modify_return) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                pins.discard();
                return Err(error);
            }
        };
        let missing_hooks = layout.missing_hooks;
        let mut kernel = Self {
            ebpf,
            pins,
            backend,
            modify_return,
            missing_hooks,
            attached: HashSet::new(),
            self_test,
        };
        match kernel.attach_for(0) {
            Ok(()) => Ok(kernel),
            Err(error) => {
                kernel.discard();
                Err(error)
            }
        }
    }

    fn load_with(
        pins: &Pins,
        layout: &Layout,
        self_test: u64,
        backend: Backend,
    ) -> Result<(Ebpf, Option<Programs>), LoadError> {
        let mut loader = EbpfLoader::new();
        loader
            .btf(None)
            .verifier_log_level(VerifierLogLevel::DISABLE)
            .allow_unsupported_maps()
            .override_global("SELF_TEST_HANDLE", &self_test, true)
            .override_global("SETATTR_DENTRY", &layout.setattr_dentry, true)
            .override_global("RENAME_LOCK", &layout.locks.renames, true)
            .override_global("MOUNT_LOCK", &layout.locks.mounts, true);
        for (field, offset) in FIELDS.iter().zip(&layout.offsets) {
            loader.override_global(field.global, offset, true);
        }
        for map in PINNED_MAPS {
            loader.map_pin_path(map.name, pins.map(map.name));
        }
        let mut ebpf = loader.load(OBJECT).map_err(Box::new)?;
        let btf = Btf::from_sys_fs()?;
        let is_wanted = |name: &str, program: &Program| {
            backend.loads(name, program) && !layout.missing_hooks.contains(&name)
        };
        for (name, program) in ebpf.programs_mut().filter(|(name, it)| is_wanted(name, it)) {
            load_program(name, program, &btf)?;
        }
        let modify_return = match backend {
            Backend::Lsm => None,
            Backend::ModifyReturn => {
                let programs = Programs::load(OBJECT, &ebpf, &btf, &layout.missing_hooks)?;
                Some(programs)
            }
        };
        attach_calls(&mut ebpf)?;
        Ok((ebpf, modify_return))
    }

    /// The new programs are proven: those of earlier daemons may go.
    pub fn retire_others(&self) -> Result<(), PinError> {
        self.pins.retire_others()
    }

    /// The new programs are not in order: they go, and those of an earlier daemon stay.
    pub fn discard(self) {
        self.pins.discard();
    }
}

/// What the kernel's type information says about this kernel.
struct Layout {
    /// Offsets of [`FIELDS`].
    offsets: Vec<u64>,
    /// Those of [`OPTIONAL_HOOKS`] that it does not have.
    missing_hooks: Vec<&'static str>,
    /// Which argument of `inode_setattr` is the dentry: it is the last but one, and the last but the idmap of newer
    /// kernels (`include/linux/lsm_hook_defs.h`, 6.1 and 6.12).
    setattr_dentry: u64,
    /// Zeros where they are not known.
    locks: Locks,
}

impl Layout {
    fn read(backend: Backend) -> Result<Self, LoadError> {
        let data = host::read_btf()?;
        let btf = btf::Btf::parse(&data)?;
        let arguments = |hook: &str| btf.arguments(&backend.function(hook)?);
        let setattr = arguments("inode_setattr").unwrap_or_default();
        let is_missing = |hook: &&&'static str| arguments(hook).is_none();
        let locks = Locks::find(&btf).unwrap_or_else(|error| {
            log::warn!("the path of each file is looked up at each open, which is slower: {error}");
            Locks::default()
        });
        Ok(Self {
            locks,
            offsets: layout::resolve(&btf)?,
            setattr_dentry: setattr.saturating_sub(2).into(),
            missing_hooks: OPTIONAL_HOOKS.iter().filter(is_missing).copied().collect(),
        })
    }
}

fn load_program(name: &str, program: &mut Program, btf: &Btf) -> Result<(), LoadError> {
    match program {
        Program::Lsm(lsm) => lsm.load(name, btf),
        Program::FEntry(fentry) => fentry.load(name, btf),
        Program::FExit(fexit) => fexit.load(name, btf),
        Program::Iter(iter) => iter.load("task", btf),
        Program::UProbe(uprobe) => uprobe.load(),
        _ => Ok(()),
    }
    .map_err(program_error(name, "load"))
}

/// Attaches the uprobes to this process. They end with it.
fn attach_calls(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    let path = PathBuf::from("/proc/self/maps");
    let maps = fs::read_to_string(&path).map_err(|source| LoadError::Read { path, source })?;
    for (name, address) in calls::addresses() {
        let offset = calls::file_offset(&maps, address).ok_or(LoadError::Call { name })?;
        if let Some(Program::UProbe(uprobe)) = ebpf.program_mut(name) {
            uprobe
                .attach(offset, "/proc/self/exe", UProbeScope::CallingProcess)
                .map_err(program_error(name, "attach"))?;
        }
    }
    Ok(())
}
