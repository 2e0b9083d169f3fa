//! Programs that modify return values. aya 0.14 has no such program type: `aya-obj` reads and relocates the object, and
//! `bpf(2)` takes it from there. When aya has the type, this module goes.

use std::{
    collections::{BTreeMap, HashSet},
    ffi::{CString, c_long},
    io, mem,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use aya::{Btf, Ebpf, maps::Map};
use aya_obj::{
    Function, Object, ProgramSection,
    btf::{BtfFeatures, BtfKind},
    generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_prog_type},
};
use nix::libc;

use super::{
    backend::Backend,
    load::{LoadError, program_error},
};

/// Hooks that answer nothing: their programs are told of the call of the function, and change nothing of it.
const VOID: &[&str] = &["bprm_committed_creds", "task_free"];

/// Bytes of the verifier's log, of which the last line says what is wrong.
const LOG_LEN: usize = 1 << 20;

/// A program that is loaded.
#[derive(Debug)]
pub(super) struct Program {
    fd: OwnedFd,
    attach_type: bpf_attach_type,
}

/// By name, as in the object.
#[derive(Debug)]
pub(super) struct Programs(BTreeMap<String, Program>);

impl Programs {
    /// Loads those of `object` that have a function to attach to, with the maps of `ebpf`, which was made of the same
    /// object. Hooks in `missing` have none on this kernel.
    pub(super) fn load(
        object: &[u8],
        ebpf: &Ebpf,
        kernel: &Btf,
        missing: &[&str],
    ) -> Result<Self, LoadError> {
        let (object, types) = relocate(object, ebpf)?;
        let mut programs = BTreeMap::new();
        for (name, program) in &object.programs {
            let function = Backend::ModifyReturn.function(name);
            let (ProgramSection::Lsm { .. }, Some(function)) = (&program.section, function) else {
                continue;
            };
            if missing.contains(&name.as_str()) {
                continue;
            }
            let code = object.functions.get(&program.function_key());
            let code = code.ok_or_else(|| refused(name, "relocate", "it has no code"))?;
            let id = kernel
                .id_by_type_name_kind(&function, BtfKind::Func)
                .map_err(program_error(name, "load"))?;
            let attach_type = if VOID.contains(&name.as_str()) {
                bpf_attach_type::BPF_TRACE_FENTRY
            } else {
                bpf_attach_type::BPF_MODIFY_RETURN
            };
            let fd = load(name, code, &program.license, attach_type, id, types.as_fd())
                .map_err(program_error(name, "load"))?;
            programs.insert(name.clone(), Program { fd, attach_type });
        }
        Ok(Self(programs))
    }

    /// Each with its name.
    pub(super) fn each(&self) -> impl Iterator<Item = (&str, &Program)> {
        self.0.iter().map(|(name, program)| (name.as_str(), program))
    }
}

impl Program {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Attaches it for as long as the link's pin is at `path`.
    pub(super) fn attach_and_pin(&self, name: &str, path: &Path) -> Result<(), LoadError> {
        let link = attach(self).map_err(program_error(name, "attach"))?;
        pin(link.as_fd(), path).map_err(program_error(name, "pin"))
    }
}

fn refused(name: &str, action: &'static str, why: impl std::fmt::Display) -> LoadError {
    program_error(name, action)(io::Error::other(why.to_string()))
}

/// The object with what it refers to, and its types in the kernel.
fn relocate(object: &[u8], ebpf: &Ebpf) -> Result<(Object, OwnedFd), LoadError> {
    let failed = |why: &dyn std::fmt::Display| refused("modify_return", "relocate", why);
    let mut object = Object::parse(object).map_err(|error| failed(&error))?;
    // Every kernel from 6.1 on has all of them.
    let features = BtfFeatures::new(true, true, true, true, true, true, true, true);
    let types = object
        .fixup_and_sanitize_btf(&features)
        .map_err(|error| failed(&error))?
        .ok_or_else(|| failed(&"it has no types"))?
        .to_bytes();
    let types = load_types(&types).map_err(|error| failed(&error))?;
    let texts: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let described = mem::take(&mut object.maps);
    let maps = described
        .iter()
        .filter_map(|(name, map)| Some((name.as_str(), ebpf.map(name).and_then(descriptor)?, map)));
    object.relocate_maps(maps, &texts).map_err(|error| failed(&error))?;
    object.relocate_calls(&texts).map_err(|error| failed(&error))?;
    Ok((object, types))
}

/// Of the kinds of maps that the programs use.
fn descriptor(map: &Map) -> Option<RawFd> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)
        | Map::Unsupported(data) => Some(data.fd().as_fd().as_raw_fd()),
        _ => None,
    }
}

/// What `bpf(2)` takes, all zeros.
fn nothing() -> bpf_attr {
    // SAFETY: a union of structures of integers, which may be zero.
    unsafe { mem::zeroed() }
}

/// `bpf(2)`. What the attributes point to must live until it returns.
fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<c_long> {
    // SAFETY: the kernel reads as many bytes as there are, and what they point to is the caller's.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
            std::ptr::from_mut(attributes),
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `bpf(2)` for commands that give a descriptor.
fn open(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(bpf(command, attributes)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A length or descriptor as the kernel takes it.
fn word(number: impl TryInto<u32>) -> io::Result<u32> {
    number.try_into().map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    let mut attributes = nothing();
    // SAFETY: all of them are integers.
    let btf = unsafe { &mut attributes.__bindgen_anon_7 };
    btf.btf = types.as_ptr() as u64;
    btf.btf_size = word(types.len())?;
    open(bpf_cmd::BPF_BTF_LOAD, &mut attributes)
}

fn load(
    name: &str,
    code: &Function,
    license: &CString,
    attach_type: bpf_attach_type,
    function: u32,
    types: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    let functions = code.func_info.func_info_bytes();
    let lines = code.line_info.line_info_bytes();
    let mut log = Vec::new();
    loop {
        let mut attributes = nothing();
        // SAFETY: all of them are integers.
        let program = unsafe { &mut attributes.__bindgen_anon_3 };
        // The rest is zero, which ends it.
        for (to, from) in program.prog_name[..15].iter_mut().zip(name.as_bytes()) {
            *to = libc::c_char::from_ne_bytes([*from]);
        }
        program.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
        program.expected_attach_type = attach_type as u32;
        program.attach_btf_id = function;
        program.insns = code.instructions.as_ptr() as u64;
        program.insn_cnt = word(code.instructions.len())?;
        program.license = license.as_ptr() as u64;
        program.prog_btf_fd = word(types.as_raw_fd())?;
        program.func_info = functions.as_ptr() as u64;
        program.func_info_cnt = word(code.func_info.len())?;
        program.func_info_rec_size = word(code.func_info_rec_size)?;
        program.line_info = lines.as_ptr() as u64;
        program.line_info_cnt = word(code.line_info.len())?;
        program.line_info_rec_size = word(code.line_info_rec_size)?;
        if !log.is_empty() {
            program.log_level = 1;
            program.log_buf = log.as_mut_ptr() as u64;
            program.log_size = word(log.len())?;
        }
        match open(bpf_cmd::BPF_PROG_LOAD, &mut attributes) {
            Ok(fd) => return Ok(fd),
            // Once more, for what the verifier has to say.
            Err(_) if log.is_empty() => log = vec![0_u8; LOG_LEN],
            Err(error) => return Err(io::Error::new(error.kind(), with_reason(&error, &log))),
        }
    }
}

/// The error, with the verifier's last words.
fn with_reason(error: &io::Error, log: &[u8]) -> String {
    let text = log.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let said = text.lines().rev().filter(|line| !line.starts_with("processed ")).take(3);
    let said: Vec<&str> = said.collect();
    let said: Vec<&str> = said.into_iter().rev().collect();
    format!("{error}: {}", said.join("; "))
}

fn attach(program: &Program) -> io::Result<OwnedFd> {
    let mut attributes = nothing();
    // SAFETY: all of them are integers.
    let link = unsafe { &mut attributes.link_create };
    link.__bindgen_anon_1.prog_fd = word(program.fd.as_raw_fd())?;
    link.attach_type = program.attach_type as u32;
    open(bpf_cmd::BPF_LINK_CREATE, &mut attributes)
}

fn pin(link: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = nothing();
    // SAFETY: all of them are integers.
    let object = unsafe { &mut attributes.__bindgen_anon_4 };
    object.pathname = path.as_ptr() as u64;
    object.bpf_fd = word(link.as_raw_fd())?;
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attributes).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_words_are_told() {
        let error = io::Error::from_raw_os_error(libc::EACCES);
        let log = b"0: R1=ctx()\n1: (85) call 999\ninvalid func 999\nprocessed 2 insns\n\0\0\0";
        let text = with_reason(&error, log);
        assert!(text.ends_with("1: (85) call 999; invalid func 999"), "{text}");
        assert!(with_reason(&error, &[0; 8]).ends_with(": "));
    }
}
