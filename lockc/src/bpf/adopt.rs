//! Labels for tasks that ran before lockc.
//!
//! From user space only whole processes can be given a label before 6.9, which has pidfds of threads. An iterator
//! over all tasks does it in the kernel, a task at a time.

use std::io::Read as _;

use aya::{maps::lpm_trie::Key, programs::Program};
use lockc_common::{Adoption, Label, LabelFlags, Number};

use super::{
    load::{Kernel, LoadError, program_error},
    maps::{Maps, lock},
    policies::remove_from_trie,
};

/// The iterator's name.
const ADOPT: &str = "adopt";

impl Kernel {
    /// Goes through all tasks once, and labels those that are meant: see [`Maps::adopt`].
    pub fn label_tasks(&mut self) -> Result<(), LoadError> {
        let Some(Program::Iter(iter)) = self.ebpf.program_mut(ADOPT) else {
            return Ok(());
        };
        let failed = || program_error(ADOPT, "run");
        let link = iter
            .attach()
            .and_then(|id| iter.take_link(id))
            .map_err(program_error(ADOPT, "attach"))?;
        let mut tasks = link.into_file().map_err(failed())?;
        // The tasks are gone through while it is read, and it says nothing.
        let mut nothing = [0; 64];
        while tasks.read(&mut nothing).map_err(program_error(ADOPT, "run"))? > 0 {}
        Ok(())
    }
}

impl Maps {
    /// Says how the process with this id is to be labelled.
    pub fn adopt(&self, pid: u32, adoption: Adoption) -> Result<(), LoadError> {
        lock(&self.adoptions)
            .insert(&Key::new(u32::BITS, pid), adoption, 0)
            .map_err(|error| LoadError::Map { name: "ADOPTIONS", reason: error.to_string() })
    }

    /// Gives the labels of a container's other tasks what they have in common with `label`.
    pub fn keep_common(&self, label: &Label) -> Result<(), LoadError> {
        let common = Label { flags: label.flags | LabelFlags::ADOPTED, ..*label };
        lock(&self.adopted)
            .insert(&Key::new(Number::BITS, label.container.into()), common, 0)
            .map_err(|error| LoadError::Map { name: "ADOPTED", reason: error.to_string() })
    }

    /// Takes back what [`Maps::adopt`] has said.
    pub fn end_adoptions(&self) {
        remove_from_trie(&mut lock(&self.adoptions), |_| true);
        remove_from_trie(&mut lock(&self.adopted), |_| true);
    }
}
