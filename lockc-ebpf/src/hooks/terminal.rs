//! Typing for others: what a container writes into the input of a terminal that it shares with a shell of the host is
//! executed there.

use lockc_common::{Operation, PolicyFlags};

use crate::{Answer, container::Subject, report::Object};

// include/uapi/asm-generic/ioctls.h, 6.12; the same for 32-bit programs.
const TIOCSTI: u32 = 0x5412;
/// Of virtual consoles: pastes a selection (`tioclinux`, drivers/tty/vt/vt.c, 6.12). Its other uses, which only a byte
/// in the caller's memory tells, are for consoles, too.
const TIOCLINUX: u32 = 0x541c;

#[inline(always)]
pub(crate) fn control(command: u32) -> Answer {
    if !matches!(command, TIOCSTI | TIOCLINUX) {
        return Answer::Allow;
    }
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    if !subject.wants(PolicyFlags::TERMINAL_INPUT) {
        return Answer::Allow;
    }
    subject.deny(Operation::TerminalInput, Object::Number(command))
}
