//! Memory that is executed.

use std::{
    fs::{self, File},
    num::NonZeroUsize,
    ptr::NonNull,
};

use nix::{
    libc::c_void,
    sys::{
        mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap},
        personality::{self, Persona},
    },
};

/// One page, on every architecture that there are tests for.
const LENGTH: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

fn unmap(at: NonNull<c_void>) -> nix::Result<()> {
    // SAFETY: the mapping is the caller's own, and nothing refers to it.
    unsafe { munmap(at, LENGTH.get()) }
}

fn map_as(file: &File, protection: ProtFlags, flags: MapFlags) -> nix::Result<NonNull<c_void>> {
    // SAFETY: at an address that the kernel chooses.
    unsafe { mmap(None, LENGTH, protection, flags, file, 0) }
}

/// Maps the start of a file as code.
pub(crate) fn map(file: &File) -> nix::Result<()> {
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_EXEC;
    unmap(map_as(file, protection, MapFlags::MAP_PRIVATE)?)
}

/// Maps the start of a file as data, as a process for which what it may read is code; whether it is.
pub(crate) fn map_implied(file: &File) -> nix::Result<bool> {
    personality::set(personality::get()? | Persona::READ_IMPLIES_EXEC)?;
    let at = map_as(file, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE)?;
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let start = format!("{:x}-", at.addr());
    let is_code = maps.lines().any(|line| line.starts_with(&start) && line.contains(" r-xp "));
    unmap(at)?;
    Ok(is_code)
}

/// Maps the start of a file as data, and makes that code.
pub(crate) fn protect(file: &File) -> nix::Result<()> {
    let at = map_as(file, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE)?;
    let result = execute(at);
    unmap(at)?;
    result
}

fn execute(at: NonNull<c_void>) -> nix::Result<()> {
    // SAFETY: the mapping is the caller's own; nobody runs what is there.
    unsafe { mprotect(at, LENGTH.get(), ProtFlags::PROT_READ | ProtFlags::PROT_EXEC) }
}

/// What a just-in-time compiler does: makes memory code that was written to, of its own and shared.
pub(crate) fn generate() -> nix::Result<()> {
    for flags in [MapFlags::MAP_PRIVATE, MapFlags::MAP_SHARED] {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: at an address that the kernel chooses.
        let at = unsafe { mmap_anonymous(None, LENGTH, protection, flags) }?;
        let result = execute(at);
        unmap(at)?;
        result?;
    }
    Ok(())
}

/// Writes the first byte of a file to where it is, through shared memory.
pub(crate) fn overwrite(file: &File) -> nix::Result<()> {
    let at = map_as(file, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED)?;
    let byte = at.cast::<u8>().as_ptr();
    // SAFETY: the mapping is a page of at least one byte of the file, and nobody else's.
    let value = unsafe { byte.read_volatile() };
    // SAFETY: as above.
    unsafe { byte.write_volatile(value) };
    unmap(at)
}
