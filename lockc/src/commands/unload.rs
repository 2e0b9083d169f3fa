//! `lockc unload`: the end of all enforcement.

use std::{fmt::Write as _, fs, io, path::Path, process::ExitCode};

use anyhow::{Result, bail};
use nix::errno::Errno;

use crate::{
    bpf::{
        pin,
        predecessor::Former,
        unload::{Group, Left, Removal, holders},
    },
    daemon::{self, DaemonError},
    explain::plain,
    state::{DIRECTORY, Query, Status, ask},
};

/// Containers that are named; of more, the number is said.
const MOST_NAMES: usize = 10;

/// Removes everything that lockc keeps in the kernel: no container is contained any more.
///
/// Says what it has removed, and which containers were enforced. Refuses while the daemon runs: stop that first. A daemon
/// that is started later adopts the containers that run then. Exit codes: 0 nothing is left, 1 something is, or nothing
/// was tried.
#[derive(Debug, clap::Args)]
pub(super) struct Unload {}

impl Unload {
    #[expect(clippy::unused_self, reason = "every verb is executed alike")]
    pub(super) fn execute(self) -> Result<ExitCode> {
        if !nix::unistd::geteuid().is_root() {
            bail!("`lockc unload` needs root");
        }
        let directory = Path::new(DIRECTORY);
        let was_there = directory.exists();
        // No daemon starts meanwhile.
        let _lock = match daemon::lock(directory) {
            Err(DaemonError::Running { .. }) => bail!(running()),
            lock => lock?,
        };
        let mut removal = Removal::of(pin::ROOT.as_ref());
        let files = match remove_directory(directory) {
            Ok(files) => files,
            Err(left) => {
                removal.left.push(left);
                0
            }
        };
        super::print(&told(&removal, was_there.then_some(files)))?;
        if removal.is_whole() {
            return Ok(ExitCode::SUCCESS);
        }
        bail!(complaint(&removal, &holders(&removal.held)))
    }
}

/// Why nothing is removed while the daemon runs.
fn running() -> String {
    let pid =
        ask::<Status>(Query::Status).map(|it| format!(" (pid {})", it.pid)).unwrap_or_default();
    format!(
        "lockc is running{pid}, nothing was removed: stop it first, with `systemctl stop lockc`, and run `lockc unload` again"
    )
}

/// Removes the daemon's own directory, and says how many files were in it.
fn remove_directory(directory: &Path) -> Result<usize, Left> {
    let left = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| Left { path, error }
    };
    let entries = fs::read_dir(directory).map_err(left(directory))?;
    let mut files = 0;
    for entry in entries.flatten() {
        fs::remove_file(entry.path()).map_err(left(&entry.path()))?;
        files += 1;
    }
    fs::remove_dir(directory).map_err(left(directory))?;
    Ok(files)
}

/// What was removed; `files` were in the daemon's directory, if it was there.
fn told(removal: &Removal, files: Option<usize>) -> String {
    let mut text = String::new();
    let mut line = |what: String| {
        text.push_str(&what);
        text.push('\n');
    };
    if removal.is_empty() {
        line(format!("nothing was enforced: there is nothing in {}", pin::ROOT));
    }
    for group in &removal.groups {
        line(format!("removed {}", described(group)));
    }
    if let Some(files) = files.filter(|files| *files > 0) {
        line(format!("removed {DIRECTORY} ({})", counted(files, "file")));
    }
    if !removal.groups.is_empty() {
        line(ended(&removal.containers));
    }
    text
}

fn described(group: &Group) -> String {
    let Group { name, programs, maps, others } = group;
    let mut parts = Vec::new();
    if *programs > 0 {
        parts.push(counted(*programs, "program"));
    }
    if *maps > 0 {
        parts.push(counted(*maps, "map"));
    }
    if *others > 0 {
        parts.push(counted(*others, "other file"));
    }
    let name = plain(name);
    let whose = match name.strip_prefix('v') {
        Some(version) if version.parse::<u32>().is_ok() => format!("layout version {version}"),
        _ if name.starts_with("aside-") => format!("{name}, pins that were set aside"),
        _ => name,
    };
    match parts.pop() {
        None => format!("no pins of {whose}"),
        Some(last) if parts.is_empty() => format!("{last} of {whose}"),
        Some(last) => format!("{} and {last} of {whose}", parts.join(", ")),
    }
}

/// The containers that are enforced no longer.
fn ended(containers: &[Former]) -> String {
    let mut names: Vec<String> = containers
        .iter()
        .filter_map(|container| container.name.as_ref())
        .map(|(owner, id)| {
            let user = if owner.is_root() { String::new() } else { format!(" (user {owner})") };
            format!("{}{user}", plain(&id.to_string()))
        })
        .collect();
    names.sort();
    let count = containers.len();
    let mut text = match count {
        0 => return "no container was enforced".to_owned(),
        1 => "1 container is no longer enforced: ".to_owned(),
        _ => format!("{count} containers are no longer enforced: "),
    };
    names.truncate(MOST_NAMES);
    let others = count - names.len();
    text.push_str(&names.join(", "));
    // Writing to a string does not fail.
    let _ = match (names.len(), others) {
        (_, 0) => Ok(()),
        (0, _) => write!(text, "{others} without a name"),
        _ => write!(text, " and {}", counted(others, "other")),
    };
    text
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What is left, why, and what can be done about it.
fn complaint(removal: &Removal, holders: &[(u32, String)]) -> String {
    let mut text =
        String::from("not everything could be removed, and what is left may still enforce:");
    for Left { path, error } in &removal.left {
        let shown = plain(&path.display().to_string());
        let remedy = remedy(&shown, error);
        // Writing to a string does not fail.
        let _ = write!(text, "\n  {shown}: {error}; {remedy}");
    }
    if !removal.held.is_empty() {
        let _ = write!(text, "\n  {} without a pin", counted(removal.held.len(), "program"));
        let by = holders.iter().map(|(pid, name)| format!("{pid} ({})", plain(name)));
        let by: Vec<String> = by.collect();
        let _ = match by.as_slice() {
            [] => write!(text, "; no process holds them, `bpftool link` may tell what does"),
            by => write!(text, ", held by process {}; end what holds them", by.join(", ")),
        };
    }
    text.push_str("\nthen run `lockc unload` again");
    text
}

fn remedy(path: &str, error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY) => format!("something is mounted there: `umount {path}`"),
        Some(Errno::EROFS) => "its file system is read-only: `mount -o remount,rw` it".to_owned(),
        Some(Errno::EPERM | Errno::EACCES) => {
            "run it as root of the machine, outside of containers".to_owned()
        }
        Some(Errno::ENOTEMPTY) => "something was added meanwhile".to_owned(),
        _ => format!("remove it by hand: `rm -r {path}`"),
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::Uid;

    use super::*;
    use crate::runtime::cmdline::ContainerId;

    fn group(name: &str, programs: usize, maps: usize, others: usize) -> Group {
        Group { name: name.to_owned(), programs, maps, others }
    }

    fn container(name: Option<(u32, &str)>) -> Former {
        let name = name
            .map(|(owner, id)| (Uid::from_raw(owner), ContainerId::new(id.as_bytes()).unwrap()));
        Former { name, policy: Some("baseline".to_owned()) }
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        let text = told(&Removal::default(), None);
        assert_eq!(text, "nothing was enforced: there is nothing in /sys/fs/bpf/lockc\n");
        let text = told(&Removal::default(), Some(2));
        assert!(text.ends_with("removed /run/lockc (2 files)\n"), "{text}");
    }

    #[test]
    fn everything_is_told_by_kind() {
        let removal = Removal {
            groups: vec![
                group("aside-1", 0, 17, 0),
                group("v5", 0, 0, 0),
                group("v6", 61, 1, 2),
                group("vx", 0, 0, 1),
            ],
            containers: vec![
                container(Some((0, "web"))),
                container(None),
                container(Some((1000, "db"))),
            ],
            ..Removal::default()
        };
        let wanted = "\
removed 17 maps of aside-1, pins that were set aside
removed no pins of layout version 5
removed 61 programs, 1 map and 2 other files of layout version 6
removed 1 other file of vx
removed /run/lockc (1 file)
3 containers are no longer enforced: db (user 1000), web and 1 other
";
        assert_eq!(told(&removal, Some(1)), wanted);
    }

    #[test]
    fn many_containers_are_counted() {
        assert_eq!(ended(&[]), "no container was enforced");
        let unnamed = [container(None), container(None)];
        assert_eq!(ended(&unnamed), "2 containers are no longer enforced: 2 without a name");
        assert_eq!(ended(&[container(Some((0, "web")))]), "1 container is no longer enforced: web");
        let many: Vec<_> =
            (10..30).map(|number| container(Some((0, &format!("c{number}"))))).collect();
        let text = ended(&many);
        assert!(text.starts_with("20 containers are no longer enforced: c10, c11, "), "{text}");
        assert!(text.ends_with(", c19 and 10 others"), "{text}");
    }

    #[test]
    fn what_is_left_has_a_remedy() {
        let left = |path: &str, errno: Errno| Left { path: path.into(), error: errno.into() };
        let removal = Removal {
            left: vec![
                left("/sys/fs/bpf/lockc/v6/maps/A", Errno::EBUSY),
                left("/sys/fs/bpf/lockc/v6/maps/B\n", Errno::EROFS),
                left("/run/lockc", Errno::ENOTEMPTY),
                left("/run/lockc/x", Errno::EISDIR),
                left("/run/lockc/y", Errno::EPERM),
            ],
            held: vec![7],
            ..Removal::default()
        };
        let text = complaint(&removal, &[(12, "bpftool".to_owned())]);
        for wanted in [
            "/v6/maps/A: ",
            "something is mounted there: `umount /sys/fs/bpf/lockc/v6/maps/A`\n",
            "read-only",
            "; something was added meanwhile\n",
            "`rm -r /run/lockc/x`",
            "root of the machine",
            "\n  1 program without a pin, held by process 12 (bpftool); end what holds them\nthen run",
        ] {
            assert!(text.contains(wanted), "no {wanted:?} in {text}");
        }
        assert!(!text.contains("/B\n"), "{text}");
        assert!(complaint(&removal, &[]).contains("bpftool link"), "{text}");
    }

    #[test]
    fn the_daemons_directory_goes() {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().join("lockc");
        fs::create_dir(&run).unwrap();
        fs::write(run.join("lock"), "").unwrap();
        fs::write(run.join("lockc.sock"), "").unwrap();
        assert_eq!(remove_directory(&run).unwrap(), 2);
        assert!(!run.exists());
        assert_eq!(remove_directory(&run).unwrap_err().path, run);
        fs::create_dir_all(run.join("theirs")).unwrap();
        assert_eq!(remove_directory(&run).unwrap_err().path, run.join("theirs"));
    }
}
