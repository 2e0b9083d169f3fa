//! Which programs are attached: those that some policy needs. One that is not attached costs nobody anything.

use std::{fs, io, os::fd::OwnedFd};

use aya::programs::{Program, ProgramError, links::FdLink};
use lockc_common::PolicyFlags;

use super::{
    load::{Kernel, LoadError, program_error},
    modify_return::Programs,
    pin::Pins,
};

const ADDRESSES: u32 = PolicyFlags::NETWORK_NONE | PolicyFlags::NETWORK_RULES;

/// Programs that do something for some policies only, and all [`PolicyFlags`] that they ask for. Every other program is
/// always attached: it follows containers, or is for what nearly every policy denies.
const NEEDED_BY: &[(&str, u32)] = &[
    ("bprm_check_security", PolicyFlags::CODE),
    ("bprm_creds_from_file", PolicyFlags::ROOT),
    ("file_mprotect", PolicyFlags::CODE),
    ("mmap_file", PolicyFlags::CODE),
    ("security_bprm_committing_creds", PolicyFlags::ROOT),
    ("security_mmap_file", PolicyFlags::CODE),
    ("shmem_evict_inode", PolicyFlags::CODE),
    ("socket_bind", ADDRESSES),
    ("socket_connect", ADDRESSES),
    ("socket_listen", ADDRESSES),
    ("socket_sendmsg", ADDRESSES),
    ("task_fix_setuid", PolicyFlags::ROOT),
];

fn is_needed(name: &str, flags: u32) -> bool {
    NEEDED_BY.iter().find(|(known, _)| *known == name).is_none_or(|(_, by)| by & flags != 0)
}

impl Kernel {
    /// Attaches and pins what policies with these flags need. Call it before they are installed.
    pub fn attach_for(&mut self, flags: u32) -> Result<(), LoadError> {
        for (name, program) in self.ebpf.programs_mut() {
            if self.missing_hooks.contains(&name)
                || self.attached.contains(name)
                || !is_needed(name, flags)
                || !self.backend.loads(name, program)
            {
                continue;
            }
            attach_and_pin(name, program, &self.pins)?;
            self.attached.insert(name.to_owned());
        }
        for (name, program) in self.modify_return.iter().flat_map(Programs::each) {
            if !self.attached.contains(name) && is_needed(name, flags) {
                program.attach_and_pin(name, &self.pins.link(name))?;
                self.attached.insert(name.to_owned());
            }
        }
        Ok(())
    }

    /// Names of the programs that are attached, in order.
    pub fn attached(&self) -> Vec<String> {
        let mut names: Vec<_> = self.attached.iter().cloned().collect();
        names.sort();
        names
    }

    /// The program that counts the ends of tasks, where it can be skipped: another copy of its descriptor.
    pub fn skippable_end(&self) -> io::Result<Option<OwnedFd>> {
        let mut programs = self.modify_return.iter().flat_map(Programs::each);
        let end = programs.find(|(name, _)| *name == "task_free");
        end.map(|(_, program)| program.fd().try_clone_to_owned()).transpose()
    }

    /// Detaches what policies with these flags do not need, and no other policy is installed.
    pub fn detach_unneeded(&mut self, flags: u32) {
        let pins = &self.pins;
        self.attached.retain(|name| {
            if is_needed(name, flags) {
                return true;
            }
            let path = pins.link(name);
            fs::remove_file(&path)
                .inspect_err(|error| log::error!("cannot remove {}: {error}", path.display()))
                .is_err()
        });
    }
}

/// Attaches a program that must outlive the daemon, and pins its link.
fn attach_and_pin(name: &str, program: &mut Program, pins: &Pins) -> Result<(), LoadError> {
    let link: FdLink = match program {
        Program::Lsm(lsm) => lsm.attach().and_then(|id| lsm.take_link(id)).map(Into::into),
        Program::FEntry(fentry) => {
            fentry.attach().and_then(|id| fentry.take_link(id)).map(Into::into)
        }
        Program::FExit(fexit) => fexit.attach().and_then(|id| fexit.take_link(id)).map(Into::into),
        _ => return Ok(()),
    }
    .map_err(program_error::<ProgramError>(name, "attach"))?;
    link.pin(pins.link(name)).map_err(program_error(name, "pin"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_policy_asks_for_is_attached() {
        for (name, flags) in NEEDED_BY {
            assert!(!is_needed(name, PolicyFlags::EVERYTHING & !flags), "{name}");
            for bit in (0..u32::BITS).map(|bit| 1 << bit).filter(|bit| bit & flags != 0) {
                assert!(is_needed(name, bit), "{name}");
            }
        }
        assert!(is_needed("file_open", 0));
    }
}
