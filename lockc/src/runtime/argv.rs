//! The argument list of a task that is frozen inside `execve(2)` or
//! `execveat(2)`.
//!
//! At `FAN_OPEN_EXEC_PERM` time `/proc/TID/cmdline` still shows the caller, but
//! the kernel tells which system call the task is blocked in and with which
//! arguments (`/proc/TID/syscall`, fs/proc/base.c, 6.12), and the new argument
//! list still lies in the caller's memory.
//!
//! The kernel copies the list after the event is answered, so whoever shares the
//! caller's memory can still change it. That is no way to more rights than the
//! caller has: it could have started the runtime with other words at once. The
//! same goes for a script that names the runtime as its interpreter, whose words
//! are shown here as the script was given them.

use std::{
    io::{self, IoSliceMut},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};

use super::proc;

/// Most words that are read. A runtime's own options come first; the rest are
/// the words of a container's process, which are not looked at.
pub const MAX_WORDS: usize = 1024;

/// Most bytes of one word, without its NUL. The kernel refuses longer ones:
/// `MAX_ARG_STRLEN`, 32 pages of 4 KiB (include/uapi/linux/binfmts.h, 6.12).
pub const MAX_WORD_LEN: usize = 128 << 10;

/// Most bytes of all words together.
pub const MAX_TOTAL_LEN: usize = 256 << 10;

/// Memory is read in pieces that do not cross a multiple of this, because a piece
/// that touches an unmapped page is not read at all. It divides every page size.
const PAGE: u64 = 4096;

/// Most bytes of `/proc/TID/syscall`: nine numbers of up to 64 bits.
const SYSCALL_LEN: usize = 256;

/// Longest wait for a task to fall asleep.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// The argument list of an `execve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argv {
    /// The words, first the program's name, without their NULs.
    pub words: Vec<Vec<u8>>,
    /// The list is longer than the bounds of this module; `words` is its beginning.
    pub cut: bool,
}

/// Why an argument list could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ArgvError {
    /// `/proc/TID/syscall` cannot be read; most often the task is gone.
    #[error("cannot read the system call of thread {tid} from {}", path.display())]
    Syscall {
        /// The frozen thread.
        tid: i32,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The thread is not blocked in a system call that executes a file.
    #[error("thread {tid} is not in execve: its system call is `{text}`")]
    NotExec {
        /// The thread.
        tid: i32,
        /// Content of `/proc/TID/syscall`.
        text: String,
    },
    /// The thread's memory cannot be read.
    #[error("cannot read the {what} of thread {tid} at {address:#x}")]
    Memory {
        /// The frozen thread.
        tid: i32,
        /// Which part of the list.
        what: &'static str,
        /// Where in its memory.
        address: u64,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
}

/// Reads the argument list of thread `tid`, which must be blocked in an
/// `execve` or `execveat` of any ABI of the machine.
pub fn read(tid: Pid) -> Result<Argv, ArgvError> {
    let text = frozen_syscall(tid)?;
    let exec = Exec::parse(&text).ok_or_else(|| ArgvError::NotExec {
        tid: tid.as_raw(),
        text: text.trim_end().to_owned(),
    })?;
    read_words(tid, exec)
}

/// Reads `/proc/TID/syscall`. The event is queued before its task goes to sleep
/// (`fanotify_handle_event`, fs/notify/fanotify/fanotify.c, 6.12), so that it may still be
/// `running` for a moment.
fn frozen_syscall(tid: Pid) -> Result<String, ArgvError> {
    let path = PathBuf::from(format!("/proc/{tid}/syscall"));
    let end = Instant::now() + MAX_WAIT;
    let mut text = [0; SYSCALL_LEN];
    loop {
        let text = proc::read(&path, &mut text).map_err(|source| ArgvError::Syscall {
            tid: tid.as_raw(),
            path: path.clone(),
            source,
        })?;
        if text.trim_ascii_end() != b"running" || Instant::now() >= end {
            return Ok(String::from_utf8_lossy(text).into_owned());
        }
        thread::yield_now();
    }
}

/// Where a frozen task's argument list lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Address of the first pointer.
    pub argv: u64,
    /// Bytes of a pointer: 4 or 8.
    pub pointer_len: u64,
}

impl Exec {
    /// Understands `NR ARG0 … ARG5 SP PC`, the number decimal and the rest
    /// hexadecimal.
    ///
    /// The numbers of different ABIs do not collide as long as it is known that
    /// the task executes a file.
    pub fn parse(text: &str) -> Option<Self> {
        const X32: i64 = 0x4000_0000;
        let mut fields = text.split_ascii_whitespace();
        let nr: i64 = fields.next()?.parse().ok()?;
        // (number, position of argv, bytes of a pointer)
        let table: &[(i64, usize, u64)] = if cfg!(target_arch = "x86_64") {
            // arch/x86/entry/syscalls/syscall_{64,32}.tbl, 6.12: native, ia32, x32.
            &[
                (59, 1, 8),
                (322, 2, 8),
                (11, 1, 4),
                (358, 2, 4),
                (X32 + 520, 1, 4),
                (X32 + 545, 2, 4),
            ]
        } else {
            // include/uapi/asm-generic/unistd.h and arch/arm/tools/syscall.tbl, 6.12.
            &[(221, 1, 8), (281, 2, 8), (11, 1, 4), (387, 2, 4)]
        };
        let &(_, position, pointer_len) = table.iter().find(|(number, ..)| *number == nr)?;
        let argument = fields.nth(position)?;
        let argv = u64::from_str_radix(argument.strip_prefix("0x")?, 16).ok()?;
        // The upper half of a register is not part of a 32-bit argument.
        let argv = if pointer_len == 4 { argv & u64::from(u32::MAX) } else { argv };
        Some(Self { argv, pointer_len })
    }

    /// Reads the list of thread `tid`, whose memory `read` gives: it fills the beginning of the
    /// buffer from the address, and says how much of it.
    pub fn words(
        self,
        tid: Pid,
        read: &dyn Fn(u64, &mut [u8]) -> nix::Result<usize>,
    ) -> Result<Argv, ArgvError> {
        let mut argv = Argv { words: Vec::new(), cut: false };
        // A null list is an empty one (`count`, fs/exec.c, 6.12).
        if self.argv == 0 {
            return Ok(argv);
        }
        let memory = Memory { tid, read };
        let mut room = MAX_TOTAL_LEN;
        let mut pointers =
            Pointers { memory, exec: self, next: self.argv, buffer: Vec::new(), used: 0 };
        while let Some(pointer) = pointers.next()? {
            if argv.words.len() == MAX_WORDS {
                argv.cut = true;
                break;
            }
            let Some(word) = memory.word(pointer, room.min(MAX_WORD_LEN))? else {
                argv.cut = true;
                break;
            };
            room -= word.len();
            argv.words.push(word);
        }
        Ok(argv)
    }
}

fn read_words(tid: Pid, exec: Exec) -> Result<Argv, ArgvError> {
    exec.words(tid, &|address, buffer| {
        let base = usize::try_from(address).map_err(|_| Errno::EFAULT)?;
        let remote = [RemoteIoVec { base, len: buffer.len() }];
        process_vm_readv(tid, &mut [IoSliceMut::new(buffer)], &remote)
    })
}

/// The pointers of the list, read by the piece.
struct Pointers<'m> {
    memory: Memory<'m>,
    exec: Exec,
    next: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl Pointers<'_> {
    /// The next pointer, or `None` at the end of the list.
    fn next(&mut self) -> Result<Option<u64>, ArgvError> {
        let len = usize::try_from(self.exec.pointer_len).unwrap_or(8);
        let mut bytes = [0; 8];
        for byte in &mut bytes[..len] {
            if self.used == self.buffer.len() {
                self.buffer = self.memory.piece(self.next, 512, "argument list")?;
                self.next = self.next.wrapping_add(self.buffer.len() as u64);
                self.used = 0;
            }
            *byte = self.buffer[self.used];
            self.used += 1;
        }
        let pointer = if cfg!(target_endian = "little") {
            u64::from_le_bytes(bytes)
        } else {
            u64::from_be_bytes(bytes) >> (64 - 8 * self.exec.pointer_len)
        };
        Ok((pointer != 0).then_some(pointer))
    }
}

/// The memory of a frozen task.
#[derive(Clone, Copy)]
struct Memory<'m> {
    tid: Pid,
    read: &'m dyn Fn(u64, &mut [u8]) -> nix::Result<usize>,
}

impl Memory<'_> {
    /// The string at `address`, or `None` if it is longer than `longest` bytes.
    fn word(self, address: u64, longest: usize) -> Result<Option<Vec<u8>>, ArgvError> {
        let mut word = Vec::new();
        let mut next = address;
        // Most words are short.
        let mut len = 256;
        loop {
            let piece = self.piece(next, len, "argument")?;
            let end = piece.iter().position(|byte| *byte == 0);
            word.extend_from_slice(&piece[..end.unwrap_or(piece.len())]);
            if word.len() > longest {
                return Ok(None);
            }
            if end.is_some() {
                return Ok(Some(word));
            }
            next = next.wrapping_add(piece.len() as u64);
            len = PAGE;
        }
    }

    /// Reads up to `len` bytes, and at least one, without crossing a page boundary.
    fn piece(self, address: u64, len: u64, what: &'static str) -> Result<Vec<u8>, ArgvError> {
        let tid = self.tid.as_raw();
        let failed = |source| ArgvError::Memory { tid, what, address, source };
        let len = len.min(PAGE - address % PAGE);
        let len = usize::try_from(len).map_err(|_| failed(Errno::EFAULT))?;
        let mut piece = vec![0; len];
        let read = (self.read)(address, &mut piece).map_err(failed)?;
        if read == 0 {
            return Err(failed(Errno::EFAULT));
        }
        piece.truncate(read);
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn system_calls() {
        let exec = |argv, pointer_len| Some(Exec { argv, pointer_len });
        for (text, expected) in [
            ("59 0x1 0x7ffc10 0x3 0x4 0x5 0x6 0x7ffc 0x7f\n", exec(0x7f_fc10, 8)),
            ("322 0x4 0x1 0x20 0x3 0x1000 0x6 0x7ffc 0x7f\n", exec(0x20, 8)),
            ("11 0x1 0xffffffff00000010 0x3 0x4 0x5 0x6 0x7ffc 0x7f\n", exec(0x10, 4)),
            ("358 0x4 0x1 0x20 0x3 0x1000 0x6 0x7ffc 0x7f\n", exec(0x20, 4)),
            ("1073742344 0x1 0x20 0x3 0x4 0x5 0x6 0x7ffc 0x7f\n", exec(0x20, 4)),
            ("1073742369 0x4 0x1 0x20 0x3 0x1000 0x6 0x7ffc 0x7f\n", exec(0x20, 4)),
            ("0 0x4 0x1 0x20 0x3 0x1000 0x6 0x7ffc 0x7f\n", None),
            ("-1 0x7ffc 0x7f\n", None),
            ("running\n", None),
            ("59 0x1\n", None),
            ("59 0x1 nonsense\n", None),
            ("", None),
        ] {
            assert_eq!(Exec::parse(text), expected, "{text}");
        }
    }

    /// The list of this very process, laid out in memory for the occasion.
    fn read_own(words: &[&[u8]]) -> Result<Argv, ArgvError> {
        let strings: Vec<Vec<u8>> = words.iter().map(|word| [word, &b"\0"[..]].concat()).collect();
        let mut list: Vec<u64> = strings.iter().map(|s| s.as_ptr().addr() as u64).collect();
        list.push(0);
        let exec = Exec { argv: list.as_ptr().addr() as u64, pointer_len: 8 };
        read_words(Pid::this(), exec)
    }

    #[test]
    fn words_of_all_lengths() {
        for len in [0, 1, 255, 256, 257, 4095, 4096, 4097, MAX_WORD_LEN] {
            let word = vec![b'x'; len];
            let argv = read_own(&[b"runc", &word, b"end"]).unwrap();
            assert_eq!(argv.words, [&b"runc"[..], &word, b"end"]);
            assert!(!argv.cut);
        }
    }

    #[test]
    fn bounds_cut_and_do_not_fail() {
        let words = vec![&b"w"[..]; MAX_WORDS];
        assert!(!read_own(&words).unwrap().cut);
        let words = vec![&b"w"[..]; MAX_WORDS + 1];
        let argv = read_own(&words).unwrap();
        assert_eq!((argv.words.len(), argv.cut), (MAX_WORDS, true));

        let long = vec![b'x'; MAX_WORD_LEN + 1];
        let argv = read_own(&[b"runc", &long, b"end"]).unwrap();
        assert_eq!(argv, Argv { words: vec![b"runc".to_vec()], cut: true });

        let long = vec![b'x'; MAX_WORD_LEN];
        let argv = read_own(&[&long, &long, b"end"]).unwrap();
        assert_eq!((argv.words.len(), argv.cut), (2, true));
    }

    #[test]
    fn a_null_list_is_empty() {
        let argv = read_words(Pid::this(), Exec { argv: 0, pointer_len: 8 }).unwrap();
        assert_eq!(argv, Argv { words: vec![], cut: false });
    }

    #[test]
    fn bad_addresses_are_errors() {
        let error = read_words(Pid::this(), Exec { argv: 8, pointer_len: 8 }).unwrap_err();
        let expected = format!("cannot read the argument list of thread {} at 0x8", Pid::this());
        assert_eq!(error.to_string(), expected);
        let list = [0xdead_0000_u64, 0];
        let exec = Exec { argv: list.as_ptr().addr() as u64, pointer_len: 8 };
        assert!(matches!(
            read_words(Pid::this(), exec),
            Err(ArgvError::Memory { what: "argument", address: 0xdead_0000, .. })
        ));
    }

    #[test]
    fn a_thread_that_does_not_execute_is_an_error() {
        assert!(matches!(read(Pid::from_raw(i32::MAX)), Err(ArgvError::Syscall { .. })));
        // Whoever reads its own file is running.
        let error = read(nix::unistd::gettid()).unwrap_err();
        assert!(error.to_string().contains("is not in execve"), "{error}");
    }
}
