//! Processes that wait in a container, and try something when they are told to: before lockc is there, and after.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
    sys::signal::{SigHandler, Signal, signal},
    unistd::{ForkResult, Pid, chroot, fork, pause},
};

use super::{Failure, Outcome, Step as _};

/// How often they try.
const ROUNDS: usize = 8;
const PAUSE: Duration = Duration::from_millis(30);
/// Between looks for something to do.
const OBEDIENCE: Duration = Duration::from_millis(5);
/// Who retries is ready after that many attempts.
const ENOUGH: u64 = 100;

pub(super) fn verb(verb: &str, args: &[&str]) -> Option<Outcome> {
    match (verb, args) {
        ("lurk", [shared, path]) => Some(lurk(Path::new(shared), path, PAUSE)),
        ("lurk", [shared, path, pause]) => Some(lurk_slowly(Path::new(shared), path, pause)),
        ("retry", [shared, path, pause]) => Some(retry(Path::new(shared), path, pause)),
        ("nap", []) => Some(nap()),
        ("obey", [shared]) => Some(obey(Path::new(shared))),
        _ => None,
    }
}

/// Sleeps for good, and does not exist for who looks for sleeping.
fn nap() -> Outcome {
    loop {
        pause();
    }
}

/// Does on one processor what the lines in `SHARED/ask.N` say, when there is `SHARED/go.N`, writes `SHARED/answer.N`, and
/// then `SHARED/done.N`; until there is `SHARED/stop`.
fn obey(shared: &Path) -> Outcome {
    let mut processors = CpuSet::new();
    processors.set(0).prepare("choose a processor")?;
    sched_setaffinity(Pid::from_raw(0), &processors).prepare("stay on a processor")?;
    let mut number = 0;
    while !shared.join("stop").exists() {
        let file = |what: &str| shared.join(format!("{what}.{number}"));
        if !file("go").exists() {
            thread::sleep(OBEDIENCE);
            continue;
        }
        let line = fs::read_to_string(file("ask")).prepare("read what is asked")?;
        let words: Vec<_> = line.split(' ').collect();
        let answer = match words.split_first().map(|(verb, args)| super::run(verb, args)) {
            Some(Ok(what)) => format!("OK {what}"),
            Some(Err(failure)) => failure.to_string(),
            None => String::new(),
        };
        fs::write(file("answer"), answer).prepare("write the answer")?;
        fs::write(file("done"), "").prepare("write that it is done")?;
        number += 1;
    }
    Ok("done".to_owned())
}

/// Tries to open `path` again and again, with so many microseconds in between, until `SHARED/stop` is there; then
/// writes to `SHARED/counts` how often it could and could not.
fn retry(shared: &Path, path: &str, pause: &str) -> Outcome {
    let pause = pause.parse().map_err(|_| Failure::Unfit(format!("no number: {pause}")))?;
    let (pause, stop) = (Duration::from_micros(pause), shared.join("stop"));
    let (mut read, mut refused, mut other) = (0_u64, 0_u64, None);
    while other.is_none() && !stop.exists() {
        match File::open(path) {
            Ok(_) => read += 1,
            Err(error) if error.raw_os_error() == Some(Errno::EPERM as i32) => refused += 1,
            Err(error) => other = Some(error.to_string()),
        }
        if read + refused == ENOUGH {
            fs::write(shared.join("ready"), "").prepare("write ready")?;
        }
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }
    let counts = format!("{read} {refused} {}", other.unwrap_or_default());
    fs::write(shared.join("counts.new"), &counts).prepare("write counts")?;
    fs::rename(shared.join("counts.new"), shared.join("counts")).prepare("rename counts")?;
    Ok(counts)
}

/// As [`lurk`], with `pause` milliseconds between the children of the chain.
fn lurk_slowly(shared: &Path, path: &str, pause: &str) -> Outcome {
    let pause = pause.parse().map_err(std::io::Error::other).prepare("read the pause")?;
    lurk(shared, path, Duration::from_millis(pause))
}

/// Waits as first process of a container, with a second thread and children of several kinds. When `SHARED/go.N` is
/// there, each tries to open `path` and adds a line to `SHARED/out.N`.
fn lurk(shared: &Path, path: &str, pause: Duration) -> Outcome {
    // SAFETY: the children of others become this one's, and are not waited for.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.prepare("signal")?;
    child(|| wait("child", shared, path))?;
    child(|| {
        unshare(CloneFlags::CLONE_NEWNS).prepare("unshare")?;
        wait("nested", shared, path)
    })?;
    let (top, below) = path.split_at(path[1..].find('/').map_or(path.len(), |at| at + 1));
    child(|| {
        // What it writes to is outside of its root.
        let files = Files::open(shared)?;
        chroot(top).prepare("chroot")?;
        files.wait("chroot", below)
    })?;
    child(|| chain(shared, path, pause))?;
    let (shared_too, path_too) = (shared.to_owned(), path.to_owned());
    thread::spawn(move || wait("thread", &shared_too, &path_too));
    fs::write(shared.join("ready"), "").prepare("write ready")?;
    wait("first", shared, path)?;
    nap()
}

fn child(run: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    // SAFETY: there is one thread so far.
    match unsafe { fork() }.prepare("fork")? {
        ForkResult::Parent { .. } => Ok(()),
        ForkResult::Child => {
            if let Err(failure) = run() {
                super::say(format_args!("lurk {failure}"));
            }
            std::process::exit(0)
        }
    }
}

/// Never the same process for long: each forks the next one, and ends.
fn chain(shared: &Path, path: &str, pause: Duration) -> Result<(), Failure> {
    for round in 0..ROUNDS {
        while !shared.join(format!("go.{round}")).exists() {
            thread::sleep(pause);
            // SAFETY: there is one thread.
            if let ForkResult::Parent { .. } = unsafe { fork() }.prepare("fork")? {
                std::process::exit(0);
            }
        }
        append(&shared.join(format!("out.{round}")), "chain", path)?;
    }
    Ok(())
}

fn wait(who: &str, shared: &Path, path: &str) -> Result<(), Failure> {
    for round in 0..ROUNDS {
        while !shared.join(format!("go.{round}")).exists() {
            thread::sleep(PAUSE);
        }
        append(&shared.join(format!("out.{round}")), who, path)?;
    }
    Ok(())
}

fn append(out: &PathBuf, who: &str, path: &str) -> Result<(), Failure> {
    let out = OpenOptions::new().create(true).append(true).open(out).prepare("open out")?;
    tell(&out, who, path)
}

fn tell(mut out: &File, who: &str, path: &str) -> Result<(), Failure> {
    let line = match fs::read_to_string(path).step("open") {
        Ok(text) => format!("{who} OK {}\n", text.trim_end()),
        Err(failure) => format!("{who} {failure}\n"),
    };
    // One write: others write to the same file.
    out.write_all(line.as_bytes()).prepare("write out")
}

/// The directory with the files of all rounds, for who cannot name it any more.
struct Files(OwnedFd);

impl Files {
    fn open(shared: &Path) -> Result<Self, Failure> {
        Ok(Self(File::open(shared).prepare("open shared")?.into()))
    }

    fn wait(&self, who: &str, path: &str) -> Result<(), Failure> {
        use nix::{
            fcntl::{AtFlags, OFlag, openat},
            sys::stat::{Mode, fstatat},
        };
        for round in 0..ROUNDS {
            let go = format!("go.{round}");
            while fstatat(&self.0, go.as_str(), AtFlags::empty()).is_err() {
                thread::sleep(PAUSE);
            }
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_APPEND;
            let name = format!("out.{round}");
            let out = openat(&self.0, name.as_str(), flags, Mode::from_bits_truncate(0o644))
                .prepare("open out")?;
            tell(&File::from(out), who, path)?;
        }
        Ok(())
    }
}
