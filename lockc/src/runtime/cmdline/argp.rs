//! glibc's argp over `getopt_long`, as crun uses it.

use super::{
    CmdlineError,
    grammar::Scan,
    shown,
    tables::{ARGP_DEFAULTS, Arg, Opt},
};

/// Scans in order (`ARGP_IN_ORDER`): crun's parsers do not handle operands, so
/// the first one ends the options (`parser_parse_arg`, argp/argp-parse.c, glibc
/// 2.36).
pub(super) fn scan<'a>(tables: &[&[Opt]], words: &'a [Vec<u8>]) -> Result<Scan<'a>, CmdlineError> {
    let mut scan = Scan::default();
    let mut next = 0;
    while let Some(word) = words.get(next) {
        if word == b"-" || !word.starts_with(b"-") {
            break;
        }
        next += 1;
        if word == b"--" {
            break;
        }
        next = match word.strip_prefix(b"--") {
            Some(long) => scan_long(&mut scan, tables, word, long, words, next)?,
            None => scan_cluster(&mut scan, tables, word, words, next)?,
        };
    }
    scan.operands.extend(words[next..].iter().map(Vec::as_slice));
    Ok(scan)
}

/// `--name`, `--name=value`, or an abbreviation of the name.
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
    let all = || tables.iter().copied().flatten().chain(ARGP_DEFAULTS);
    let mut abbreviated = all().filter(|option| option.long.as_bytes().starts_with(name));
    let option = if let Some(exact) = all().find(|option| option.long.as_bytes() == name) {
        exact
    } else {
        let first =
            abbreviated.next().ok_or_else(|| CmdlineError::UnknownOption { word: shown(word) })?;
        if abbreviated.next().is_some() {
            return Err(CmdlineError::AmbiguousOption { word: shown(word) });
        }
        first
    };
    match (option.arg, value) {
        (Arg::None, Some(_)) => Err(CmdlineError::BadValue { word: shown(word) }),
        (Arg::None | Arg::Optional, value) => {
            scan.options.push((option.role, value));
            Ok(next)
        }
        (Arg::Required, Some(value)) => {
            scan.options.push((option.role, Some(value)));
            Ok(next)
        }
        (Arg::Required, None) => take(scan, option, word, words, next),
    }
}

/// `-d`, `-bDIR`, `-b DIR`, `-db DIR`.
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
            .chain(ARGP_DEFAULTS)
            .find(|option| option.short == Some(*letter))
            .ok_or_else(|| CmdlineError::UnknownOption { word: shown(word) })?;
        let attached = Some(&word[at + 1..]).filter(|value| !value.is_empty());
        match (option.arg, attached) {
            (Arg::None, _) => scan.options.push((option.role, None)),
            (Arg::Optional, attached) => {
                scan.options.push((option.role, attached));
                return Ok(next);
            }
            (Arg::Required, Some(value)) => {
                scan.options.push((option.role, Some(value)));
                return Ok(next);
            }
            (Arg::Required, None) => return take(scan, option, word, words, next),
        }
    }
    Ok(next)
}

/// The next word is the value, whatever it looks like.
fn take<'a>(
    scan: &mut Scan<'a>,
    option: &Opt,
    word: &[u8],
    words: &'a [Vec<u8>],
    next: usize,
) -> Result<usize, CmdlineError> {
    let value = words.get(next).ok_or_else(|| CmdlineError::MissingValue { word: shown(word) })?;
    scan.options.push((option.role, Some(value)));
    Ok(next + 1)
}
