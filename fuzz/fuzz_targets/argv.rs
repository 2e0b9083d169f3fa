//! `/proc/TID/syscall`, and the memory of a task that is frozen in `execve`: the first line is the
//! one, the rest the other, from [`BASE`] on.
#![no_main]

use std::cell::Cell;

use libfuzzer_sys::fuzz_target;
use lockc::runtime::argv::{Argv, Exec, MAX_TOTAL_LEN, MAX_WORD_LEN, MAX_WORDS};
use nix::{errno::Errno, unistd::Pid};

/// Where the memory begins: what is in front of it, or behind its end, is not mapped.
const BASE: u64 = 0x1000;

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (text, memory) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let Some(exec) = Exec::parse(&String::from_utf8_lossy(text)) else { return };
    assert!(exec.pointer_len == 8 || exec.argv <= u64::from(u32::MAX));

    let reads = Cell::new(0);
    let read = |address: u64, buffer: &mut [u8]| {
        reads.set(reads.get() + 1);
        let piece = from(memory, address).filter(|piece| !piece.is_empty()).ok_or(Errno::EFAULT)?;
        let len = piece.len().min(buffer.len());
        buffer[..len].copy_from_slice(&piece[..len]);
        Ok(len)
    };
    let words = exec.words(Pid::from_raw(7), &read);
    // Two per word that crosses a page, and one per page of the words and of the list.
    assert!(reads.get() <= 2 * MAX_WORDS + MAX_TOTAL_LEN / 4096 + 16, "{} reads", reads.get());
    match &words {
        Ok(argv) => {
            assert!(argv.words.len() <= MAX_WORDS);
            assert!(argv.words.iter().all(|word| word.len() <= MAX_WORD_LEN && !word.contains(&0)));
            assert!(argv.words.iter().map(Vec::len).sum::<usize>() <= MAX_TOTAL_LEN);
        }
        Err(error) => assert!(error.to_string().contains("of thread 7 at 0x"), "{error}"),
    }
    assert_eq!(words.ok(), expected(exec, memory), "{exec:x?}");
});

/// What there is of the memory from `address` on.
fn from(memory: &[u8], address: u64) -> Option<&[u8]> {
    memory.get(usize::try_from(address.checked_sub(BASE)?).ok()?..)
}

/// The list, read as simply as it can be; `None` if it leads out of the memory.
fn expected(exec: Exec, memory: &[u8]) -> Option<Argv> {
    let mut argv = Argv { words: Vec::new(), cut: false };
    let mut room = MAX_TOTAL_LEN;
    let mut next = exec.argv;
    while next != 0 {
        let len = usize::try_from(exec.pointer_len).ok()?;
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(from(memory, next)?.get(..len)?);
        let pointer = u64::from_le_bytes(bytes);
        if pointer == 0 {
            break;
        }
        if argv.words.len() == MAX_WORDS {
            argv.cut = true;
            break;
        }
        let rest = from(memory, pointer)?;
        let end = rest.iter().position(|byte| *byte == 0);
        let word = &rest[..end.unwrap_or(rest.len())];
        if word.len() > room.min(MAX_WORD_LEN) {
            argv.cut = true;
            break;
        }
        end?;
        room -= word.len();
        argv.words.push(word.to_vec());
        next += exec.pointer_len;
    }
    Some(argv)
}
