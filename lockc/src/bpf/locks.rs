//! The kernel's sequence locks that tell whether a directory or a mount has moved: where they are.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
};

use thiserror::Error;

use super::btf::Btf;

const SYMBOLS: &str = "/proc/kallsyms";
/// Longest line that is looked at; symbols are shorter (`KSYM_NAME_LEN`, include/linux/kallsyms.h, 6.12).
const MAX_LINE: u64 = 1024;

/// Addresses of the counters of `rename_lock` (fs/dcache.c) and `mount_lock` (fs/namespace.c).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Locks {
    pub(super) renames: u64,
    pub(super) mounts: u64,
}

/// Why the programs cannot know whether something has moved.
#[derive(Debug, Error)]
pub(super) enum LocksError {
    #[error("cannot read {SYMBOLS}: {0}")]
    Read(#[from] io::Error),
    #[error(
        "{SYMBOLS} has no address for {0}; it takes CAP_SYSLOG, `sysctl kernel.kptr_restrict` at 0 or 1, and CONFIG_KALLSYMS_ALL"
    )]
    Hidden(&'static str),
    #[error("{SYMBOLS} has more than one {0}")]
    Ambiguous(&'static str),
    #[error("the kernel's BTF does not say where the counter of a seqlock_t is")]
    Counter,
}

impl Locks {
    /// Those of the kernel that runs.
    pub(super) fn find(btf: &Btf<'_>) -> Result<Self, LocksError> {
        let counter = counter(btf).ok_or(LocksError::Counter)?;
        let found = parse(BufReader::new(File::open(SYMBOLS)?))?;
        Ok(Self { renames: found.renames + counter, mounts: found.mounts + counter })
    }
}

/// Offset of the counter in a `seqlock_t`, a type without a tag: told by a structure that has one.
fn counter(btf: &Btf<'_>) -> Option<u64> {
    let lock = btf.member("signal_struct", "stats_lock")?;
    let counter = btf.member("signal_struct", "stats_lock.seqcount.seqcount.sequence")?;
    (counter.size == 4).then(|| counter.offset.checked_sub(lock.offset))?
}

/// From lines `ADDRESS TYPE NAME`; those of modules come last, with the module's name.
fn parse(mut lines: impl BufRead) -> Result<Locks, LocksError> {
    let mut locks = Locks::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if io::Read::take(&mut lines, MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let mut words = line.split(u8::is_ascii_whitespace);
        let (Some(address), Some(_), Some(name), end) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        if end.is_some_and(|module| !module.is_empty()) {
            break;
        }
        let (name, slot) = match name {
            b"rename_lock" => ("rename_lock", &mut locks.renames),
            b"mount_lock" => ("mount_lock", &mut locks.mounts),
            _ => continue,
        };
        if *slot != 0 {
            return Err(LocksError::Ambiguous(name));
        }
        let address =
            str::from_utf8(address).ok().and_then(|hex| u64::from_str_radix(hex, 16).ok());
        *slot = address.unwrap_or(0);
    }
    match locks {
        Locks { renames: 0, .. } => Err(LocksError::Hidden("rename_lock")),
        Locks { mounts: 0, .. } => Err(LocksError::Hidden("mount_lock")),
        locks => Ok(locks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: &str = "ffffffff81000000 T _text\nffffffff82f3d200 D rename_lock\n\
        ffffffff82f3d300 d mount_lock\nffffffff82f3d400 D mount_lock_other\n";

    #[test]
    fn addresses_are_found() {
        let wanted = Locks { renames: 0xffff_ffff_82f3_d200, mounts: 0xffff_ffff_82f3_d300 };
        assert_eq!(parse(SOME.as_bytes()).unwrap(), wanted);
        let modules = format!("{SOME}ffffffffc0001000 d mount_lock\t[evil]\n");
        assert_eq!(parse(modules.as_bytes()).unwrap(), wanted);
    }

    #[test]
    fn what_is_not_certain_is_an_error() {
        let error = |text: &str| parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error("").contains("no address for rename_lock"));
        assert!(
            error(&SOME.replace("ffffffff82f3d300", "0000000000000000")).contains("mount_lock")
        );
        assert!(error(&SOME.replace("mount_lock_other", "mount_lock")).contains("more than one"));
        assert!(error(&SOME.replace("82f3d200", "no number")).contains("rename_lock"));
        let long = format!("{}\n", "x".repeat(5000));
        assert!(error(&long).contains("rename_lock"));
    }
}
