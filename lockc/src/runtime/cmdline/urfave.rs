//! urfave/cli, as runc uses it.

use super::{
    CmdlineError,
    grammar::{Rest, Scan},
    shown,
    tables::{Arg, Opt, Role},
};

/// Version 1.22: Go's `flag` package, after the words were reordered.
///
/// `early` selects the reordering of the first 1.22 releases, which treats a
/// value that starts with `-` and the word `--` differently.
pub(super) fn scan_v1<'a>(
    tables: &[&[Opt]],
    words: &'a [Vec<u8>],
    rest: Rest,
    early: bool,
) -> Result<Scan<'a>, CmdlineError> {
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    match rest {
        Rest::Operands => scan_go(tables, &words),
        Rest::Interspersed => scan_go(tables, &reorder(tables, &words, early)),
    }
}

/// `reorderArgs` (command.go, urfave/cli 1.22.9), and its earlier form: options
/// come first, each with the word after it, be it a value or not.
fn reorder<'a>(tables: &[&[Opt]], words: &[&'a [u8]], early: bool) -> Vec<&'a [u8]> {
    let is_option = |word: &[u8]| {
        let Some(name) = word.strip_prefix(b"-") else { return false };
        let name = name.strip_prefix(b"-").unwrap_or(name);
        let name = name.split(|b| *b == b'=').next().unwrap_or_default();
        !name.is_empty() && find(tables, name).is_some()
    };
    let mut options: Vec<&[u8]> = Vec::with_capacity(words.len());
    let mut operands: Vec<&[u8]> = Vec::new();
    let mut expects_value = false;
    for (index, &word) in words.iter().enumerate() {
        let looks_like_option = if early { word.starts_with(b"-") } else { is_option(word) };
        if early && word == b"--" {
            operands.extend(&words[index..]);
            break;
        }
        if expects_value && !looks_like_option {
            expects_value = false;
            options.push(word);
        } else if word == b"--" {
            operands.insert(0, word);
            operands.extend(&words[index + 1..]);
            break;
        } else if is_option(word) {
            options.push(word);
            expects_value = !word.contains(&b'=');
        } else {
            operands.push(word);
        }
    }
    options.append(&mut operands);
    options
}

/// `(*FlagSet).parseOne` (src/flag/flag.go, Go 1.19): stops at the first word
/// that is no option.
fn scan_go<'a>(tables: &[&[Opt]], words: &[&'a [u8]]) -> Result<Scan<'a>, CmdlineError> {
    let mut scan = Scan::default();
    let mut next = 0;
    while let Some(&word) = words.get(next) {
        if word.len() < 2 || word[0] != b'-' {
            break;
        }
        next += 1;
        if word == b"--" {
            break;
        }
        let name = word.strip_prefix(b"--").unwrap_or(&word[1..]);
        if name.is_empty() || name[0] == b'-' || name[0] == b'=' {
            return Err(CmdlineError::UnknownOption { word: shown(word) });
        }
        let (name, value) = split(name);
        let option =
            find(tables, name).ok_or_else(|| CmdlineError::UnknownOption { word: shown(word) })?;
        match option.arg {
            Arg::None => push_bool(&mut scan, option.role, word, value)?,
            Arg::Required | Arg::Optional => {
                let value = if let Some(value) = value {
                    value
                } else {
                    next += 1;
                    words
                        .get(next - 1)
                        .ok_or_else(|| CmdlineError::MissingValue { word: shown(word) })?
                };
                scan.options.push((option.role, Some(value)));
            }
        }
    }
    scan.operands = words[next..].to_vec();
    Ok(scan)
}

/// `(*Command).parseFlags` (`command_parse.go`, urfave/cli 3.6), without short
/// option handling, which runc does not turn on.
pub(super) fn scan_v3<'a>(
    tables: &[&[Opt]],
    words: &'a [Vec<u8>],
    rest: Rest,
) -> Result<Scan<'a>, CmdlineError> {
    let mut scan = Scan::default();
    let mut next = 0;
    while let Some(raw) = words.get(next) {
        let after = words[next + 1..].iter().map(Vec::as_slice);
        let word = raw.trim_ascii();
        if word == b"--" {
            scan.operands.extend(after);
            break;
        }
        if rest == Rest::Operands && !word.starts_with(b"-") {
            scan.operands.push(word);
            scan.operands.extend(after);
            break;
        }
        next += 1;
        match word {
            [] => scan.operands.push(raw),
            // The loop ends here, and what follows is dropped.
            b"-" => {
                scan.operands.push(word);
                break;
            }
            [b'-', b'-', ..] => {}
            [b'-', letter, ..] if !is_letter(*letter) => {
                scan.operands.push(raw);
                scan.operands.extend(after);
                break;
            }
            [b'-', ..] => {}
            _ => scan.operands.push(word),
        }
        if !word.starts_with(b"-") {
            continue;
        }
        let (name, value) = split(word.strip_prefix(b"--").unwrap_or(&word[1..]));
        let option =
            find(tables, name).ok_or_else(|| CmdlineError::UnknownOption { word: shown(word) })?;
        match (option.arg, value) {
            (Arg::None, Some(b"")) => push_bool(&mut scan, option.role, word, None)?,
            (Arg::None, value) => push_bool(&mut scan, option.role, word, value)?,
            (_, Some(value)) => scan.options.push((option.role, Some(value))),
            (_, None) => {
                let value = words
                    .get(next)
                    .ok_or_else(|| CmdlineError::MissingValue { word: shown(word) })?;
                next += 1;
                scan.options.push((option.role, Some(value)));
            }
        }
    }
    Ok(scan)
}

/// The first byte of a letter; beyond ASCII no option has one, so that the
/// look-up refuses what is not one after all.
fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || !byte.is_ascii()
}

/// Long and short names are alike: one `-` or two.
fn find<'t>(tables: &[&'t [Opt]], name: &[u8]) -> Option<&'t Opt> {
    tables
        .iter()
        .flat_map(|table| table.iter())
        .find(|o| o.long.as_bytes() == name || o.short.is_some_and(|short| name == [short]))
}

fn split(name: &[u8]) -> (&[u8], Option<&[u8]>) {
    match name.iter().position(|b| *b == b'=') {
        Some(at) => (&name[..at], Some(&name[at + 1..])),
        None => (name, None),
    }
}

/// `--help=false` asks for nothing, and takes an earlier `--help` back.
fn push_bool<'a>(
    scan: &mut Scan<'a>,
    role: Role,
    word: &[u8],
    value: Option<&'a [u8]>,
) -> Result<(), CmdlineError> {
    // strconv.ParseBool
    match value {
        None | Some(b"1" | b"t" | b"T" | b"TRUE" | b"true" | b"True") => {
            scan.options.push((role, None));
        }
        Some(b"0" | b"f" | b"F" | b"FALSE" | b"false" | b"False") => {
            scan.options.retain(|(r, _)| *r != role || role == Role::Plain);
        }
        Some(_) => return Err(CmdlineError::BadValue { word: shown(word) }),
    }
    Ok(())
}
