//! clap 4, as youki uses it: names in full, options anywhere, values that do not
//! look like options.

use super::{
    CmdlineError,
    grammar::{Rest, Scan},
    shown,
    tables::{Arg, Opt, Role},
};

pub(super) fn scan<'a>(
    tables: &[&[Opt]],
    words: &'a [Vec<u8>],
    rest: Rest,
) -> Result<Scan<'a>, CmdlineError> {
    let mut scan = Scan::default();
    let mut next = 0;
    while let Some(word) = words.get(next) {
        next += 1;
        if word == b"--" {
            scan.operands.extend(words[next..].iter().map(Vec::as_slice));
            break;
        }
        if word == b"-" || !word.starts_with(b"-") {
            scan.operands.push(word);
            if rest == Rest::Operands {
                scan.operands.extend(words[next..].iter().map(Vec::as_slice));
                break;
            }
            continue;
        }
        next = match word.strip_prefix(b"--") {
            Some(long) => scan_long(&mut scan, tables, word, long, words, next)?,
            None => scan_cluster(&mut scan, tables, word, words, next)?,
        };
    }
    Ok(scan)
}

fn scan_long<'a>(
    scan: &mut Scan<'a>,
    tables: &[&[Opt]],
    word: &[u8],
    long: &'a [u8],
    words: &'a [Vec<u8>],
    next: usize,
) -> Result<usize, CmdlineError> {
    let (name, value) = match long.iter().position(|b| *b == b'=') {
        Some(at) => (&long[..at], Some(&long[at + 1..])),
        None => (long, None),
    };
    let option = tables
        .iter()
        .copied()
        .flatten()
        .find(|option| !option.long.is_empty() && option.long.as_bytes() == name)
        .ok_or_else(|| CmdlineError::UnknownOption { word: shown(word) })?;
    match (option.arg, value) {
        (Arg::None, Some(_)) => Err(CmdlineError::BadValue { word: shown(word) }),
        (Arg::None, None) => push(scan, option, word, None).map(|()| next),
        (_, Some(value)) => push(scan, option, word, Some(value)).map(|()| next),
        (_, None) => take(scan, option, word, words, next),
    }
}

fn scan_cluster<'a>(
    scan: &mut Scan<'a>,
    tables: &[&[Opt]],
    word: &'a [u8],
    words: &'a [Vec<u8>],
    next: usize,
) -> Result<usize, CmdlineError> {
    for (at, letter) in word.iter().enumerate().skip(1) {
        let option = tables
            .iter()
            .copied()
            .flatten()
            .find(|option| option.short == Some(*letter))
            .ok_or_else(|| CmdlineError::UnknownOption { word: shown(word) })?;
        let attached = &word[at + 1..];
        match option.arg {
            Arg::None => push(scan, option, word, None)?,
            _ if attached.is_empty() => return take(scan, option, word, words, next),
            _ => {
                let value = attached.strip_prefix(b"=").unwrap_or(attached);
                return push(scan, option, word, Some(value)).map(|()| next);
            }
        }
    }
    Ok(next)
}

fn take<'a>(
    scan: &mut Scan<'a>,
    option: &Opt,
    word: &[u8],
    words: &'a [Vec<u8>],
    next: usize,
) -> Result<usize, CmdlineError> {
    match words.get(next) {
        Some(value) if value == b"-" || !value.starts_with(b"-") => {
            push(scan, option, word, Some(value)).map(|()| next + 1)
        }
        _ => Err(CmdlineError::MissingValue { word: shown(word) }),
    }
}

fn push<'a>(
    scan: &mut Scan<'a>,
    option: &Opt,
    word: &[u8],
    value: Option<&'a [u8]>,
) -> Result<(), CmdlineError> {
    if matches!(option.role, Role::Bundle | Role::Root) && scan.has(option.role) {
        return Err(CmdlineError::RepeatedOption { word: shown(word) });
    }
    scan.options.push((option.role, value));
    Ok(())
}
