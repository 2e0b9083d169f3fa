//! Labels for tasks that ran before lockc.
//!
//! From user space only whole processes can be given a label before 6.9, which has pidfds of threads. An iterator
//! over all tasks does it in the kernel, a task at a time.

use std::io::Read as _;

use aya::programs::Program;
use lockc_common::{Adoption, Label, LabelFlags};

use super::{
    load::{Kernel, LoadError, program_error},
    maps::{Maps, lock},
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
            .insert(pid, adoption, 0)
            .map_err(|error| LoadError::Map { name: "ADOPTIONS", reason: error.to_string() })
    }

    /// Gives the labels of a container's other tasks what they have in common with `label`.
    pub fn keep_common(&self, label: &Label) -> Result<(), LoadError> {
        let common = Label { flags: label.flags | LabelFlags::ADOPTED, ..*label };
        lock(&self.adopted)
            .insert(label.container, common, 0)
            .map_err(|error| LoadError::Map { name: "ADOPTED", reason: error.to_string() })
    }

    /// Takes back what [`Maps::adopt`] has said.
    pub fn end_adoptions(&self) {
        // Absent is as good as removed.
        let mut adoptions = lock(&self.adoptions);
        for pid in adoptions.keys().flatten().collect::<Vec<_>>() {
            let _ = adoptions.remove(&pid);
        }
        let mut adopted = lock(&self.adopted);
        for handle in adopted.keys().flatten().collect::<Vec<_>>() {
            let _ = adopted.remove(&handle);
        }
    }
}
