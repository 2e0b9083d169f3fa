//! What `/proc` says about all processes, as far as it tells containers apart.
//!
//! No file of a process is opened or asked for its attributes, and nothing of its memory is read (`cmdline`): on a file
//! system in user space, or in memory that its owner fills, that could take for ever.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use crate::runtime::caller::{Ids, start_ticks};

/// Programs that engines leave beside a container, and whose children its first processes are.
const SHIMS: [&[u8]; 3] = [b"containerd-shim", b"conmon", b"docker-containerd-shim"];

/// What a process is by the file that it executes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// An OCI runtime, by its name in the configuration.
    Runtime(String),
    /// What an engine leaves beside a container.
    Shim,
    /// Anything else.
    Other,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its parent's id.
    pub parent: u32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
    /// Inode number of its mount namespace.
    pub mount_ns: u64,
    /// Its user, as the machine numbers users.
    pub user: u32,
    /// The longest path of its control groups.
    pub cgroup: Vec<u8>,
    /// By what it executes.
    pub role: Role,
}

/// All processes at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By their ids.
    pub processes: BTreeMap<u32, Process>,
    /// Inode number of the machine's mount namespace.
    pub host_ns: u64,
}

impl Snapshot {
    /// Looks at every process. `runtimes` are the real paths and names of the files that are runtimes.
    pub fn take(runtimes: &[(PathBuf, String)]) -> io::Result<Self> {
        Self::with(fs::metadata("/proc/1/ns/mnt")?.ino(), runtimes)
    }

    fn with(host_ns: u64, runtimes: &[(PathBuf, String)]) -> io::Result<Self> {
        let mut processes = BTreeMap::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // One that has ended meanwhile is no process.
            if let Some(process) = look(pid, runtimes) {
                processes.insert(pid, process);
            }
        }
        Ok(Self { processes, host_ns })
    }

    /// The process and those above it, as far as there are any.
    pub fn line(&self, pid: u32) -> impl Iterator<Item = &Process> {
        // A process cannot be above itself, but its number can be one that was there a moment before.
        std::iter::successors(self.processes.get(&pid), |process| {
            self.processes.get(&process.parent).filter(|parent| parent.pid != process.pid)
        })
        .take(self.processes.len())
    }
}

fn look(pid: u32, runtimes: &[(PathBuf, String)]) -> Option<Process> {
    let dir = PathBuf::from(format!("/proc/{pid}"));
    let stat = fs::read(dir.join("stat")).ok()?;
    // Not the directory's owner, which is root for whoever forbids to be looked into.
    let ids = Ids::parse(&fs::read(dir.join("status")).ok()?)?;
    Some(Process {
        pid,
        parent: parent(&stat)?,
        start_ticks: start_ticks(&stat)?,
        mount_ns: fs::metadata(dir.join("ns/mnt")).ok()?.ino(),
        user: ids.euid.as_raw(),
        cgroup: cgroup(&fs::read(dir.join("cgroup")).unwrap_or_default()),
        // A thread of the kernel executes nothing.
        role: fs::read_link(dir.join("exe")).map_or(Role::Other, |exe| role(&exe, runtimes)),
    })
}

/// Field 4 of `/proc/PID/stat`: see [`start_ticks`].
fn parent(stat: &[u8]) -> Option<u32> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = str::from_utf8(&stat[end + 1..]).ok()?;
    fields.split_ascii_whitespace().nth(4 - 3)?.parse().ok()
}

/// The longest path in `/proc/PID/cgroup` (cgroups(7)): lines of hierarchy, controllers and path.
fn cgroup(text: &[u8]) -> Vec<u8> {
    let path = |line: &[u8]| line.splitn(3, |byte| *byte == b':').nth(2).map(<[u8]>::to_vec);
    text.split(|byte| *byte == b'\n').filter_map(path).max_by_key(Vec::len).unwrap_or_default()
}

/// What a process is whose `/proc/PID/exe` leads to `exe`. runc and crun execute copies of themselves from memory, which
/// have their name, or from a mount of that one file, above which there are no directories.
fn role(exe: &Path, runtimes: &[(PathBuf, String)]) -> Role {
    let bytes = exe.as_os_str().as_bytes();
    let path = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    let file = Path::new(OsStr::from_bytes(path));
    let is_copy = |runtime: &Path| {
        let Some(name) = runtime.file_name() else { return false };
        let name = name.as_bytes();
        match path.strip_prefix(b"/memfd:") {
            Some(memory) => memory.windows(name.len()).any(|window| window == name),
            None => path.strip_prefix(b"/") == Some(name),
        }
    };
    let found = runtimes.iter().find(|(runtime, _)| runtime == file || is_copy(runtime));
    if let Some((_, runtime)) = found {
        return Role::Runtime(runtime.clone());
    }
    let base = file.file_name().unwrap_or_default().as_bytes();
    if SHIMS.iter().any(|shim| base.starts_with(shim)) { Role::Shim } else { Role::Other }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_known_by_their_files_and_as_copies() {
        let runtimes = [(PathBuf::from("/usr/bin/runc"), "runc".to_owned())];
        let role = |exe: &str| role(exe.as_ref(), &runtimes);
        let runc = Role::Runtime("runc".to_owned());
        assert_eq!(role("/usr/bin/runc"), runc);
        assert_eq!(role("/usr/bin/runc (deleted)"), runc);
        assert_eq!(role("/memfd:runc_cloned:/proc/self/exe (deleted)"), runc);
        assert_eq!(role("/runc"), runc);
        assert_eq!(role("/memfd:x (deleted)"), Role::Other);
        assert_eq!(role("/"), Role::Other);
        assert_eq!(role("/srv/runc"), Role::Other);
        assert_eq!(role("/usr/bin/containerd-shim-runc-v2"), Role::Shim);
        assert_eq!(role("/usr/bin/conmon"), Role::Shim);
    }

    #[test]
    fn fields_of_proc() {
        assert_eq!(parent(b"7 (a) b) S 42 1 1"), Some(42));
        assert_eq!(parent(b"7"), None);
        assert_eq!(cgroup(b"0::/a/b\n"), b"/a/b");
        assert_eq!(cgroup(b"2:cpu,cpuacct:/docker/x:y\n1:name=systemd:/\n"), b"/docker/x:y");
        assert_eq!(cgroup(b""), b"");
    }

    #[test]
    fn oneself_is_among_the_processes() {
        let snapshot = Snapshot::with(0, &[]).unwrap();
        let line: Vec<u32> = snapshot.line(std::process::id()).map(|it| it.pid).collect();
        assert_eq!(line.first(), Some(&std::process::id()));
        assert!(line.len() > 1);
        assert_eq!(snapshot.line(u32::MAX).count(), 0);
    }
}
