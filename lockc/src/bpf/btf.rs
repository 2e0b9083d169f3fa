//! Member offsets from the kernel's own type information (BTF).
//!
//! Format: Documentation/bpf/btf.rst, Linux 6.12. The parser is bounded by its
//! input, never panics, and knows just what offsets need. (`btf-rs` would do, but
//! is under the LGPL, which does not go with one static binary.)

use std::collections::{HashMap, HashSet};

use thiserror::Error;

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: usize = 24;
/// What LSM programs attach to instead of the hook itself (`kernel/bpf/bpf_lsm.c`, 6.12), and the functions that ask
/// the hooks (`security/security.c`).
const FUNCTIONS: [&[u8]; 2] = [b"bpf_lsm_", b"security_"];
/// Typedefs and modifiers that one lookup follows, and how deep anonymous members may nest.
const MAX_DEPTH: usize = 32;
/// Bytes of a name with its NUL; the kernel takes no longer ones (`KSYM_NAME_LEN`, include/linux/kallsyms.h, 6.12).
const MAX_NAME: usize = 512;

/// Why the type information is of no use.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BtfError {
    /// Not BTF of this machine's byte order, version 1.
    #[error("not BTF version 1 (starts with {magic:#06x}, version {version})")]
    Format {
        /// First two bytes.
        magic: u16,
        /// Third byte.
        version: u8,
    },
    /// Something points outside the data.
    #[error("BTF is cut off or inconsistent at byte {at}")]
    Truncated {
        /// Where it was noticed.
        at: usize,
    },
    /// A kind of type that this parser does not know.
    #[error("BTF type {id} has unknown kind {kind}")]
    UnknownKind {
        /// Type id.
        id: u32,
        /// Its kind.
        kind: u32,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int,
    Pointer,
    Array,
    Composite,
    Enum,
    Alias,
    Float,
    Other,
}

#[derive(Clone, Copy)]
struct Type {
    kind: Kind,
    /// Bit 31 of `info`: members carry a bit-field size in their offset.
    bitfields: bool,
    /// `size` or `type`, depending on the kind.
    value: u32,
    members: u16,
    /// Where the kind's own data starts.
    data: usize,
}

/// A member of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Offset from the start of the structure in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
}

/// Parsed type information.
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    index: Vec<Type>,
    structs: HashMap<&'a [u8], u32>,
    /// Function of a security module's hook → its prototype.
    functions: HashMap<&'a [u8], u32>,
}

impl std::fmt::Debug for Btf<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Btf").field("types", &self.index.len()).finish_non_exhaustive()
    }
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(data.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn section(data: &[u8], start: u32, len: u32, header: usize) -> Option<&[u8]> {
    let start = header.checked_add(start as usize)?;
    data.get(start..start.checked_add(len as usize)?)
}

impl<'a> Btf<'a> {
    /// Parses the contents of `/sys/kernel/btf/vmlinux`.
    pub fn parse(data: &'a [u8]) -> Result<Self, BtfError> {
        let truncated = |at| BtfError::Truncated { at };
        let magic = u16_at(data, 0).ok_or(truncated(0))?;
        let version = *data.get(2).ok_or(truncated(2))?;
        if magic != MAGIC || version != 1 {
            return Err(BtfError::Format { magic, version });
        }
        let word = |at| u32_at(data, at).ok_or(truncated(at));
        let header = word(4)? as usize;
        if header < HEADER_LEN {
            return Err(truncated(4));
        }
        let types = section(data, word(8)?, word(12)?, header).ok_or(truncated(8))?;
        let strings = section(data, word(16)?, word(20)?, header).ok_or(truncated(16))?;
        let mut btf = Self {
            types,
            strings,
            index: Vec::new(),
            structs: HashMap::new(),
            functions: HashMap::new(),
        };
        btf.read_types()?;
        Ok(btf)
    }

    fn read_types(&mut self) -> Result<(), BtfError> {
        // Type 0 is void.
        self.index.push(Type {
            kind: Kind::Other,
            bitfields: false,
            value: 0,
            members: 0,
            data: 0,
        });
        let mut at = 0;
        while at < self.types.len() {
            let id = u32::try_from(self.index.len()).map_err(|_| BtfError::Truncated { at })?;
            let truncated = BtfError::Truncated { at };
            let (Some(name), Some(info), Some(value)) =
                (u32_at(self.types, at), u32_at(self.types, at + 4), u32_at(self.types, at + 8))
            else {
                return Err(truncated);
            };
            let members = (info & 0xffff) as u16;
            let raw = (info >> 24) & 0x1f;
            let count = usize::from(members);
            let (kind, extra) = match raw {
                1 => (Kind::Int, 4),
                2 => (Kind::Pointer, 0),
                3 => (Kind::Array, 12),
                4 | 5 => (Kind::Composite, count * 12),
                6 => (Kind::Enum, count * 8),
                7 | 12 => (Kind::Other, 0),
                8..=11 | 18 => (Kind::Alias, 0),
                13 => (Kind::Other, count * 8),
                14 | 17 => (Kind::Other, 4),
                15 => (Kind::Other, count * 12),
                16 => (Kind::Float, 0),
                19 => (Kind::Enum, count * 12),
                kind => return Err(BtfError::UnknownKind { id, kind }),
            };
            let data = at + 12;
            at = data + extra;
            if at > self.types.len() {
                return Err(truncated);
            }
            if raw == 4 && name != 0 {
                let name = self.string(name).ok_or(BtfError::Truncated { at })?;
                self.structs.entry(name).or_insert(id);
            }
            if raw == 12 {
                let name = self.string(name).ok_or(truncated)?;
                if FUNCTIONS.iter().any(|prefix| name.starts_with(prefix)) {
                    self.functions.insert(name, value);
                }
            }
            self.index.push(Type { kind, bitfields: info >> 31 == 1, value, members, data });
        }
        Ok(())
    }

    /// The name at `offset`. Many types may share one, so it must not be long.
    fn string(&self, offset: u32) -> Option<&'a [u8]> {
        let rest = self.strings.get(offset as usize..)?;
        let end = rest.iter().take(MAX_NAME).position(|byte| *byte == 0)?;
        Some(&rest[..end])
    }

    fn resolve(&self, mut id: u32) -> Option<Type> {
        for _ in 0..MAX_DEPTH {
            let found = *self.index.get(id as usize)?;
            if found.kind != Kind::Alias {
                return Some(found);
            }
            id = found.value;
        }
        None
    }

    fn size_of(&self, found: Type, depth: usize) -> Option<u64> {
        match found.kind {
            Kind::Int | Kind::Composite | Kind::Enum | Kind::Float => Some(u64::from(found.value)),
            Kind::Pointer => Some(8),
            Kind::Array if depth < MAX_DEPTH => {
                let element = self.resolve(u32_at(self.types, found.data)?)?;
                let count = u32_at(self.types, found.data + 8)?;
                self.size_of(element, depth + 1)?.checked_mul(u64::from(count))
            }
            _ => None,
        }
    }

    /// Finds the member at `path` (dot-separated) of `structure`. Members of anonymous structures
    /// and unions count as members of what encloses them, as in C. `None` when there is none, or
    /// when it is a bit field. With an empty path the offset is that of the structure's end: its size.
    pub fn member(&self, structure: &str, path: &str) -> Option<Member> {
        let mut current = *self.index.get(*self.structs.get(structure.as_bytes())? as usize)?;
        if path.is_empty() {
            return Some(Member { offset: u64::from(current.value), size: 0 });
        }
        let mut offset = 0_u64;
        let mut size = 0;
        for name in path.split('.') {
            let (at, found) = self.find(current, name.as_bytes(), 0, &mut HashSet::new())?;
            offset = offset.checked_add(at)?;
            size = self.size_of(found, 0)?;
            current = found;
        }
        Some(Member { offset, size })
    }

    /// How many arguments the function has; `None` if this kernel has none of that name, or it is for no hook
    /// (`bpf_lsm_…` or `security_…`).
    pub fn arguments(&self, function: &str) -> Option<u16> {
        let prototype = self.index.get(*self.functions.get(function.as_bytes())? as usize)?;
        Some(prototype.members)
    }

    /// Each of the `seen` types was searched, in vain: again would be once for every way to it, of which there can be
    /// more than ever end.
    fn find(
        &self,
        composite: Type,
        name: &[u8],
        depth: usize,
        seen: &mut HashSet<usize>,
    ) -> Option<(u64, Type)> {
        if composite.kind != Kind::Composite || depth > MAX_DEPTH || !seen.insert(composite.data) {
            return None;
        }
        for member in 0..usize::from(composite.members) {
            let at = composite.data + member * 12;
            let member_name = u32_at(self.types, at)?;
            let member_type = self.resolve(u32_at(self.types, at + 4)?)?;
            let raw = u32_at(self.types, at + 8)?;
            let (bits, bitfield) =
                if composite.bitfields { (raw & 0xff_ffff, raw >> 24) } else { (raw, 0) };
            let here = u64::from(bits / 8);
            if self.string(member_name)? == name {
                return (bitfield == 0 && bits % 8 == 0).then_some((here, member_type));
            }
            // Without a name: anonymous, or a named structure embedded by -fms-extensions (7.x).
            if member_name == 0
                && let Some((inner, found)) = self.find(member_type, name, depth + 1, seen)
            {
                return Some((here.checked_add(inner)?, found));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
