//! Devices that give what is below all files: block devices, and memory.

use lockc_common::{Operation, PolicyFlags, interface};

use crate::{
    Answer,
    container::Subject,
    kernel::{Inode, is_block_device, is_char_device},
    report::Object,
};

/// Whether opening the device would give the machine's disks or memory.
#[inline(always)]
pub(crate) fn is_raw(inode: Inode) -> bool {
    inode.is_block_device() || inode.char_device().is_some_and(interface::is_memory)
}

/// `mknod(2)` of anything but what every container has: another name for a device is another way to it.
/// FIFOs, sockets and regular files come here, too.
#[inline(always)]
pub(crate) fn make(mode: u16, device: u32) -> Answer {
    let is_harmless = !is_char_device(mode) || interface::may_be_made(device);
    if is_harmless && !is_block_device(mode) {
        return Answer::Allow;
    }
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    if !subject.wants(PolicyFlags::DEVICES) {
        return Answer::Allow;
    }
    subject.deny(Operation::Device, Object::Number(device))
}
