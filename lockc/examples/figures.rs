//! What the daemon takes of a machine, printed from inside a guest:
//!
//! ```console
//! $ cargo build --release -p lockc --example figures
//! $ cargo xtask vm --share target/x86_64-unknown-linux-musl/release/examples -- /mnt/share/figures
//! ```
//!
//! Starts `lockc run`, then containers with crun, and looks at the process before and after.

#![expect(clippy::print_stdout, reason = "it is there to print")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{maps::MapInfo, programs::loaded_programs};

/// Containers that run at the second look.
const CONTAINERS: usize = 100;
/// Starts of the daemon whose time is taken.
const STARTS: usize = 5;
const PATIENCE: Duration = Duration::from_mins(2);

fn main() -> Result<()> {
    let times: Vec<Duration> = (0..STARTS)
        .map(|_| {
            let (daemon, time) = start()?;
            stop(daemon)?;
            Ok(time)
        })
        .collect::<Result<_>>()?;
    println!("from exec to READY=1: {times:.2?}");
    let (daemon, _) = start()?;
    println!("\nafter start");
    process(daemon.id())?;
    let bundle = make_bundle()?;
    for number in 0..CONTAINERS {
        crun(&["run", "--detach", "--bundle", &bundle, &format!("figures-{number}")])?;
    }
    println!("\nwith {CONTAINERS} running containers");
    process(daemon.id())?;
    maps(daemon.id())?;
    programs()?;
    for number in 0..CONTAINERS {
        crun(&["delete", "--force", &format!("figures-{number}")])?;
    }
    stop(daemon)
}

/// Starts the daemon and waits until it is ready.
fn start() -> Result<(Child, Duration)> {
    let path = "/run/figures.socket";
    let socket = UnixDatagram::bind(path).context("bind the notification socket")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let begin = Instant::now();
    let daemon = Command::new("/usr/bin/lockc")
        .arg("run")
        .env("NOTIFY_SOCKET", path)
        .stderr(Stdio::null())
        .spawn()
        .context("start lockc")?;
    let mut state = [0; 64];
    let len = socket.recv(&mut state).context("wait for READY=1")?;
    let time = begin.elapsed();
    ensure!(state.get(..len) == Some(b"READY=1"), "lockc did not become ready");
    fs::remove_file(path)?;
    Ok((daemon, time))
}

fn stop(mut daemon: Child) -> Result<()> {
    let pid = nix::unistd::Pid::from_raw(daemon.id().try_into()?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    ensure!(daemon.wait()?.success(), "lockc failed");
    Ok(())
}

/// Prints what `/proc` says about the process.
fn process(pid: u32) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    for line in status.lines() {
        if ["VmHWM", "VmRSS", "RssAnon", "RssFile", "RssShmem", "Threads"]
            .iter()
            .any(|k| line.starts_with(k))
        {
            println!("  {}", line.replace('\t', " "));
        }
    }
    println!("  descriptors: {}", fs::read_dir(format!("/proc/{pid}/fd"))?.count());
    memory(pid)
}

/// Prints of what resident memory consists (`proc_pid_smaps(5)`).
fn memory(pid: u32) -> Result<()> {
    let mut parts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut part = "";
    for line in fs::read_to_string(format!("/proc/{pid}/smaps"))?.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["Rss:", kib, "kB"] => *parts.entry(part).or_default() += kib.parse::<u64>()?,
            // The first line of a mapping: addresses, rights, offset, device, inode, and what it is.
            [range, rights, _, _, _, name @ ..] if range.contains('-') => {
                part = match (name.first().copied().unwrap_or_default(), *rights) {
                    (path, "r-xp") if path.ends_with("/lockc") => "code",
                    (path, _) if path.ends_with("/lockc") => "the binary's data",
                    ("anon_inode:bpf-map", _) => "ring buffer and maps",
                    ("[heap]", _) => "heap",
                    ("" | "[stack]", _) => "stacks, and what is anonymous besides",
                    _ => "the kernel's",
                };
            }
            _ => {}
        }
    }
    for (part, kib) in parts {
        println!("    {kib:>6} kB  {part}");
    }
    Ok(())
}

/// Prints the kernel memory of the maps that the daemon holds.
fn maps(pid: u32) -> Result<()> {
    let mut bytes = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let info = fs::read_to_string(entry?.path())?;
        let number = |key: &str| -> Option<u64> {
            info.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok()
        };
        if let (Some(id), Some(memory)) = (number("map_id:"), number("memlock:")) {
            bytes.insert(u32::try_from(id)?, memory);
        }
    }
    println!("\nmaps, kB of kernel memory ({} in all)", bytes.values().sum::<u64>() / 1000);
    let mut bytes: Vec<_> = bytes.into_iter().collect();
    bytes.sort_by_key(|(_, memory)| std::cmp::Reverse(*memory));
    for (id, memory) in bytes {
        let info = MapInfo::from_id(id)?;
        println!("  {:>6}  {}", memory / 1000, info.name_as_str().unwrap_or("?"));
    }
    Ok(())
}

/// Prints the instructions that the verifier went through, and the size of the machine code.
fn programs() -> Result<()> {
    println!("\nprograms: instructions verified, bytes of machine code, kB of memory");
    let mut names = Vec::new();
    for program in loaded_programs() {
        let program = program?;
        let name = program.name_as_str().unwrap_or("?").to_owned();
        let (verified, size) = (program.verified_instruction_count(), program.size_jitted());
        names.push((name, verified.unwrap_or(0), size, program.memory_locked()? / 1000));
    }
    names.sort();
    for (name, verified, size, memory) in &names {
        println!("  {verified:>7}  {size:>6}  {memory:>3}  {name}");
    }
    println!("  {:>7}  in {} programs", names.iter().map(|name| name.1).sum::<u32>(), names.len());
    Ok(())
}

fn crun(words: &[&str]) -> Result<()> {
    let status = Command::new("crun").args(words).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "crun {} failed: {status}", words.join(" "));
    Ok(())
}

/// A bundle that sleeps.
fn make_bundle() -> Result<String> {
    let bundle = Path::new("/run/figures");
    for name in ["bin", "dev", "proc"] {
        fs::create_dir_all(bundle.join("rootfs").join(name))?;
    }
    fs::copy("/usr/bin/busybox", bundle.join("rootfs/bin/sleep")).context("copy busybox")?;
    let config = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/sleep", "100000"], "cwd": "/"},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network"}]},
    });
    fs::write(bundle.join("config.json"), serde_json::to_vec(&config)?)?;
    Ok(bundle.display().to_string())
}
