//! Users and groups of this machine.

use std::{
    collections::BTreeSet, fs::File, io::Read as _, os::unix::fs::OpenOptionsExt as _,
    sync::OnceLock,
};

use nix::fcntl::OFlag;

use crate::policy::Pattern;

/// Where users are looked up. Users that only a directory service knows must be given by id: a
/// static binary cannot load the modules of the C library that ask one.
pub(super) const PASSWD: &str = "/etc/passwd";
/// The same for groups.
pub(super) const GROUP: &str = "/etc/group";

/// Most bytes of one that are read.
const MAX_LEN: u64 = 1 << 20;

/// Names and ids, read when they are first asked for.
#[derive(Debug, Default)]
pub(super) struct Users {
    all: OnceLock<Vec<(String, u32)>>,
}

impl Users {
    /// Ids of all users whose names match.
    pub(super) fn find(&self, pattern: &Pattern) -> BTreeSet<u32> {
        let all = self.all.get_or_init(|| parse(&read(PASSWD).unwrap_or_default()));
        all.iter().filter(|(name, _)| pattern.is_match(name)).map(|(_, uid)| *uid).collect()
    }
}

/// Groups by name.
#[derive(Debug, Default)]
pub(super) struct Groups {
    all: OnceLock<Vec<(String, u32)>>,
}

impl Groups {
    /// Id of a group.
    pub(super) fn id(&self, name: &str) -> Option<u32> {
        let all = self.all.get_or_init(|| parse(&read(GROUP).unwrap_or_default()));
        all.iter().find(|(known, _)| known == name).map(|(_, gid)| *gid)
    }
}

fn read(path: &str) -> std::io::Result<Vec<u8>> {
    let file = File::options()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_LEN).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Names and ids of `passwd(5)` or `group(5)`. Lines that are something else, as those of NIS, are skipped.
fn parse(passwd: &[u8]) -> Vec<(String, u32)> {
    let line = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = std::str::from_utf8(fields.next()?).ok()?;
        let uid = std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
        Some((name.to_owned(), uid))
    };
    passwd.split(|byte| *byte == b'\n').filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_passwd() {
        let text = b"root:x:0:0:root:/root:/bin/sh\n+nis\n\xff:x:5:5::\nkiosk:x:1000:1000\nx:y:z\n";
        assert_eq!(parse(text), [("root".to_owned(), 0), ("kiosk".to_owned(), 1000)]);
        let users = Users { all: parse(text).into() };
        let find = |glob| users.find(&Pattern::new(glob).unwrap());
        assert_eq!(find("k*"), [1000].into());
        assert_eq!(find("*"), [0, 1000].into());
        assert!(find("toor").is_empty());
        let groups = Groups { all: parse(b"root:x:0:\nlockc:x:999:a,b\n").into() };
        assert_eq!(groups.id("lockc"), Some(999));
        assert_eq!(groups.id("l*"), None);
    }
}
