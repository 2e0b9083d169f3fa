//! Command lines of runtimes. Words are separated by line feeds; the first byte
//! says whether the list is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lockc::runtime::cmdline::{Dialect, Invocation, Verb, parse};

fuzz_target!(|data: &[u8]| {
    let Some((first, data)) = data.split_first() else { return };
    let cut = *first == b'c';
    let words: Vec<Vec<u8>> = data.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let dialects = [Dialect::Runc, Dialect::Crun, Dialect::Youki];
    let known = dialects.map(|dialect| parse(dialect, &words, cut));
    for invocation in known.iter().flatten() {
        if let Invocation { verb: Verb::Create(target) | Verb::Run(target), .. } = invocation {
            assert!(!cut, "a create was understood of a part of its words");
            // runc's later parser trims its words, the others do not.
            let id = target.id.as_bytes();
            assert!(words.iter().any(|word| word == id || word.trim_ascii() == id));
        }
    }
    // An unknown runtime may be any of them, so what is taken for its command line must be
    // what each that understands it takes it for.
    if let Ok(unknown) = parse(Dialect::Unknown, &words, cut) {
        assert!(known.iter().flatten().all(|invocation| *invocation == unknown));
    }
});
