//! Paths of the host, as places on file systems: a container reaches them by other names, through other mounts.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
    path::PathBuf,
};

use lockc_common::{HOST_PREFIX, PATH_RULE_LEN, PathVerdict};
use thiserror::Error;

use super::PathRule;

/// Symbolic links that are followed in one path (`MAXSYMLINKS`, include/linux/namei.h, 6.12).
const MAX_LINKS: usize = 40;

/// `/`, the device of a file system in four bytes, and the path on it with its closing `/`; at most
/// [`PATH_RULE_LEN`] bytes. [`PathVerdict::Allow`] keeps the name and nothing else.
pub type HostRule = (Vec<u8>, PathVerdict);

/// Why paths of the host have no rules.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HostError {
    /// The kernel's list of mounts is not as it should be.
    #[error("line {line} of /proc/self/mountinfo is not understood")]
    Line {
        /// Its number, from 1.
        line: usize,
    },
    /// Nothing is mounted at `/`.
    #[error("/proc/self/mountinfo has no mount at /")]
    NoRoot,
    /// The path on the file system is too long for the kernel side.
    #[error(
        "host path `{path}` is longer than {} bytes on its file system",
        PATH_RULE_LEN - HOST_PREFIX - 1
    )]
    Long {
        /// The path on the host, as far as it is text.
        path: String,
    },
}

/// What comes of the host paths of one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRules {
    /// Sorted; of two of which one is below the other the longer one counts.
    pub rules: Vec<HostRule>,
    /// Mount points below a host path whose place on their file systems is too long for a rule.
    pub left_out: Vec<PathBuf>,
}

/// The mounts of a mount namespace (`proc_pid_mountinfo(5)`).
#[derive(Clone, Debug, Default)]
pub struct Mounts(Vec<Mount>);

#[derive(Clone, Debug)]
struct Mount {
    id: u64,
    parent: u64,
    /// As the kernel has it (`MKDEV`, `include/linux/kdev_t.h`, 6.12).
    device: u32,
    /// What of the file system is mounted: without a closing `/`, so that the top is empty.
    root: Vec<u8>,
    /// Where, without a closing `/`.
    at: Vec<u8>,
}

impl Mounts {
    /// Understands what `/proc/PID/mountinfo` says.
    pub fn parse(text: &[u8]) -> Result<Self, HostError> {
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let mounts =
            lines.enumerate().map(|(at, line)| mount(line).ok_or(HostError::Line { line: at + 1 }));
        Ok(Self(mounts.collect::<Result<_, _>>()?))
    }

    /// Rules that put `paths`, and all that is mounted below them, out of reach.
    ///
    /// `read_link` says where a symbolic link leads, `None` for what is no link, is not there, or cannot be read.
    /// Links on the way are out of reach themselves: whoever can replace one takes the path away from under its rule.
    pub fn rules(
        &self,
        paths: &[PathRule],
        read_link: impl Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<HostRules, HostError> {
        let (mut all, mut left_out) = (BTreeMap::new(), Vec::new());
        for path in paths {
            let (path, links) = follow(path.as_bytes(), &read_link);
            for place in links.iter().chain([&path]) {
                self.add_place(place, &mut all)?;
            }
            for mount in self.0.iter().filter(|mount| mount.at != path && covers(&path, &mount.at))
            {
                let verdict =
                    if mount.root.is_empty() { PathVerdict::NotRoot } else { PathVerdict::Deny };
                match key(mount.device, &mount.root, b"") {
                    Some(key) => add(&mut all, key, verdict),
                    None => left_out.push(PathBuf::from(OsString::from_vec(mount.at.clone()))),
                }
            }
        }
        Ok(HostRules { rules: without_covered(all), left_out })
    }

    /// The place itself; and the directories that it is mounted on keep their names, as those above it do.
    fn add_place(
        &self,
        path: &[u8],
        all: &mut BTreeMap<Vec<u8>, PathVerdict>,
    ) -> Result<(), HostError> {
        let long = || HostError::Long { path: String::from_utf8_lossy(path).into_owned() };
        let way = self.way(path).ok_or(HostError::NoRoot)?;
        let ends = way.iter().skip(1).map(|mount| (mount.at.as_slice(), PathVerdict::Allow));
        for (mount, (end, verdict)) in way.iter().zip(ends.chain([(path, PathVerdict::Deny)])) {
            let rest = end.get(mount.at.len()..).unwrap_or_default();
            add(all, key(mount.device, &mount.root, rest).ok_or_else(long)?, verdict);
        }
        Ok(())
    }

    /// The mounts that a path without links passes, from the one at `/` on, in the way of the kernel: at each the
    /// nearest one that is mounted on it. What is hidden below another mount is not passed.
    fn way(&self, path: &[u8]) -> Option<Vec<&Mount>> {
        let listed: HashSet<u64> = self.0.iter().map(|mount| mount.id).collect();
        let top = self.0.iter().rfind(|mount| {
            mount.at.is_empty() && (mount.parent == mount.id || !listed.contains(&mount.parent))
        })?;
        // By what they are mounted on: thousands may lie at one place, each on the one before.
        let mut above: HashMap<u64, Vec<&Mount>> = HashMap::new();
        for mount in self.0.iter().filter(|mount| covers(&mount.at, path)) {
            above.entry(mount.parent).or_default().push(mount);
        }
        let (mut way, mut passed) = (vec![top], HashSet::from([top.id]));
        let mut last = top;
        while let Some(next) = above
            .get(&last.id)
            .into_iter()
            .flatten()
            .filter(|mount| !passed.contains(&mount.id))
            .rev()
            .min_by_key(|mount| mount.at.len())
        {
            way.push(next);
            passed.insert(next.id);
            last = next;
        }
        Some(way)
    }
}

/// One line: id, parent, device, root, mount point, and more.
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse::<u64>().ok();
    let (id, parent) = (number()?, number()?);
    let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    if major >= 1 << 12 || minor >= 1 << 20 {
        return None;
    }
    let root = whole_or_part(unescape(fields.next()?));
    let mut at = unescape(fields.next()?);
    if !at.starts_with(b"/") {
        return None;
    }
    if at == b"/" {
        at.clear();
    }
    Some(Mount { id, parent, device: major << 20 | minor, root, at })
}

/// The root of a mount. Where it is no path on the file system (namespaces, control groups outside of one's own
/// namespace) it stands for all of that.
fn whole_or_part(mut root: Vec<u8>) -> Vec<u8> {
    // What was removed has its name all the same (`d_path`, fs/d_path.c, 6.12).
    if let Some(name) = root.strip_suffix(b"//deleted") {
        root.truncate(name.len());
    }
    let is_path = root.starts_with(b"/") && !root.split(|byte| *byte == b'/').any(|it| it == b"..");
    if root == b"/" || !is_path {
        root.clear();
    }
    root
}

/// Takes back what `mangle` (`fs/proc_namespace.c`, 6.12) has done: `\` and three octal digits for a byte.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let escaped = match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if *first == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        out.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    out
}

/// Whether `path` is `above` or lies below it, both without a closing `/`.
fn covers(above: &[u8], path: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// The path without links, without a closing `/`; and the links that were on the way.
fn follow(path: &[u8], read_link: impl Fn(&[u8]) -> Option<Vec<u8>>) -> (Vec<u8>, Vec<Vec<u8>>) {
    let parts = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect()
    };
    let mut ahead: VecDeque<Vec<u8>> = parts(path).into();
    let (mut done, mut links) = (Vec::new(), Vec::new());
    while let Some(part) = ahead.pop_front() {
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                let parent = done.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                done.truncate(parent);
                continue;
            }
            _ => {}
        }
        let directory = done.len();
        done.push(b'/');
        done.extend(part);
        if links.len() == MAX_LINKS {
            continue;
        }
        if let Some(target) = read_link(&done) {
            links.push(done.clone());
            done.truncate(if target.starts_with(b"/") { 0 } else { directory });
            for part in parts(&target).into_iter().rev() {
                ahead.push_front(part);
            }
        }
    }
    (done, links)
}

/// `None` if it is too long.
fn key(device: u32, root: &[u8], rest: &[u8]) -> Option<Vec<u8>> {
    let mut key = vec![b'/'];
    key.extend(device.to_le_bytes());
    key.extend(root);
    key.extend(rest);
    key.push(b'/');
    (key.len() <= PATH_RULE_LEN).then_some(key)
}

fn add(all: &mut BTreeMap<Vec<u8>, PathVerdict>, key: Vec<u8>, verdict: PathVerdict) {
    let strictness = |verdict| match verdict {
        PathVerdict::Deny => 2,
        PathVerdict::NotRoot => 1,
        _ => 0,
    };
    let known = all.entry(key).or_insert(verdict);
    if strictness(verdict) > strictness(*known) {
        *known = verdict;
    }
}

/// Leaves out what lies below something that is out of reach: such a rule adds nothing, and would be an exception.
fn without_covered(all: BTreeMap<Vec<u8>, PathVerdict>) -> Vec<HostRule> {
    let mut rules: Vec<HostRule> = Vec::new();
    let mut denied: Option<Vec<u8>> = None;
    for (key, verdict) in all {
        if denied.as_ref().is_some_and(|above| key.starts_with(above)) {
            continue;
        }
        if verdict == PathVerdict::Deny {
            denied = Some(key.clone());
        }
        rules.push((key, verdict));
    }
    rules
}

#[cfg(test)]
mod tests;
