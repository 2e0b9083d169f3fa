//! The kernel log: `syslog(2)`, `/proc/kmsg` and reads of `/dev/kmsg` arrive in the `syslog` hook
//! (kernel/printk/printk.c, `check_syslog_permissions`); writes of `/dev/kmsg` only in `file_open`.

use lockc_common::{Operation, PolicyFlags};

use crate::{Answer, container::Subject, report::Object};

/// `/dev/kmsg`, major 1 minor 11 in the kernel's encoding (`MKDEV`: 20 bits of minor).
pub(crate) const KMSG: u32 = (1 << 20) | 0xb;

#[inline(always)]
pub(crate) fn syslog(action: i32) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    if !subject.wants(PolicyFlags::KERNEL_LOG) {
        return Answer::Allow;
    }
    subject.deny(Operation::KernelLog, Object::Number(action.cast_unsigned()))
}
