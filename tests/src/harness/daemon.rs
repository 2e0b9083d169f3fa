//! The daemon under test.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;

use super::{
    holdings::Holdings,
    process::{self, Output, Running, wait_for},
};

/// The installed binary.
pub(crate) const LOCKC: &str = "/usr/bin/lockc";
/// Where enforcement stays pinned.
pub(crate) const PINS: &str = "/sys/fs/bpf/lockc";
/// Longest time from start to READY. Verifying the programs takes seconds on an emulated machine.
const START_DEADLINE: Duration = Duration::from_mins(4);
/// Longest time from SIGTERM to the end.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Longest time from a changed file to its being in force, while an emulated machine has much else to do.
const RELOAD_DEADLINE: Duration = Duration::from_mins(1);
/// Longest time from a denial to its line in the log.
const LOG_DEADLINE: Duration = Duration::from_secs(15);

/// Where the map of this name is pinned, below the directory of whatever version.
pub(crate) fn pinned_map(name: &str) -> Result<PathBuf> {
    fs::read_dir(PINS)
        .with_context(|| format!("list {PINS}"))?
        .flatten()
        .map(|version| version.path().join("maps").join(name))
        .find(|path| path.exists())
        .with_context(|| format!("no map {name} below {PINS}"))
}

/// A running daemon. Dropping it kills the daemon and removes its enforcement.
#[derive(Debug)]
pub(crate) struct Lockc {
    running: Option<Running>,
    dir: PathBuf,
    /// Daemons started so far: each has its own log.
    generation: u32,
}

impl Lockc {
    /// Starts the daemon with `config` and waits until it says it is ready. `dir` takes its
    /// configuration, socket and log.
    pub(crate) fn start(dir: &Path, config: &str) -> Result<Self> {
        Self::start_with(dir, config, |_| Ok(()))
    }

    /// As [`Lockc::start`], with something changed about its process.
    pub(crate) fn start_with(
        dir: &Path,
        config: &str,
        prepare: impl FnOnce(&mut Command) -> Result<()>,
    ) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        fs::write(dir.join("lockc.toml"), config)?;
        let mut lockc = Self { running: None, dir: dir.to_owned(), generation: 0 };
        lockc.restart_with(prepare)?;
        Ok(lockc)
    }

    /// Directory of its configuration.
    pub(crate) fn directory(&self) -> &Path {
        &self.dir
    }

    /// Its configuration's main file.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.join("lockc.toml")
    }

    /// What it holds now.
    pub(crate) fn holdings(&self) -> Result<Holdings> {
        Holdings::of(self.pid()?)
    }

    /// Puts another configuration in place, and waits until it is in force.
    pub(crate) fn reload(&self, config: &str) -> Result<()> {
        self.expect_reload(|| {
            let new = self.dir.join("lockc.new");
            fs::write(&new, config)?;
            Ok(fs::rename(new, self.config_path())?)
        })
    }

    /// Waits until another configuration is in force after `change`.
    pub(crate) fn expect_reload(&self, change: impl Fn() -> Result<()>) -> Result<()> {
        let before = fs::metadata(self.log_path())?.len();
        change()?;
        wait_for("a new configuration", RELOAD_DEADLINE, || {
            let is_in_force = self.log_from(before)?.contains("configuration in force after");
            Ok(is_in_force.then_some(()))
        })
        .with_context(|| format!("log:\n{}", tail(&self.log().unwrap_or_default(), 10)))
    }

    /// Starts the daemon again with the same configuration.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.restart_with(|_| Ok(()))
    }

    fn restart_with(&mut self, prepare: impl FnOnce(&mut Command) -> Result<()>) -> Result<()> {
        ensure!(self.running.is_none(), "the daemon runs already");
        self.generation += 1;
        // Of the last but one: who restarts it by the hundred would fill the machine's memory.
        let _ =
            fs::remove_file(self.dir.join(format!("log.{}", self.generation.saturating_sub(2))));
        let socket = self.dir.join("notify");
        let _ = fs::remove_file(&socket);
        let notify =
            UnixDatagram::bind(&socket).with_context(|| format!("bind {}", socket.display()))?;
        notify.set_read_timeout(Some(Duration::from_millis(100)))?;

        let mut command = Command::new(LOCKC);
        command
            .arg("run")
            .arg("--config")
            .arg(self.dir.join("lockc.toml"))
            .env("NOTIFY_SOCKET", &socket)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.log_path())?);
        prepare(&mut command)?;
        let mut running = Running::start_as_is(&mut command)?;

        let end = Instant::now() + START_DEADLINE;
        let mut message = [0; 4096];
        loop {
            if let Ok(length) = notify.recv(&mut message)
                && String::from_utf8_lossy(&message[..length]).lines().any(|line| line == "READY=1")
            {
                break;
            }
            if let Some(status) = running.ended()? {
                bail!("the daemon ended before it was ready: {status}; log:\n{}", self.log()?);
            }
            if Instant::now() > end {
                bail!("the daemon was not ready within {START_DEADLINE:?}; log:\n{}", self.log()?);
            }
        }
        self.running = Some(running);
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join(format!("log.{}", self.generation))
    }

    /// The lines that the daemon, or the last one if it has ended, has logged.
    pub(crate) fn log(&self) -> Result<String> {
        self.log_from(0)
    }

    /// The same without what was there when the log had this length.
    fn log_from(&self, length: u64) -> Result<String> {
        let path = self.log_path();
        let read = || -> io::Result<Vec<u8>> {
            let (mut file, mut log) = (File::open(&path)?, Vec::new());
            file.seek(SeekFrom::Start(length))?;
            file.read_to_end(&mut log)?;
            Ok(log)
        };
        let log = read().with_context(|| format!("read {}", path.display()))?;
        Ok(String::from_utf8_lossy(whole_lines(&log)).into_owned())
    }

    pub(crate) fn pid(&self) -> Result<Pid> {
        self.running.as_ref().map(Running::pid).context("the daemon does not run")
    }

    /// Fails when the daemon has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        let running = self.running.as_mut().context("the daemon does not run")?;
        match running.ended()? {
            None => Ok(()),
            Some(status) => bail!("the daemon ended: {status}; log:\n{}", self.log()?),
        }
    }

    /// Kills the daemon without notice.
    pub(crate) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// Waits until the daemon ends by itself, or by somebody else's hand.
    pub(crate) fn wait_for_end(&mut self) -> Result<ExitStatus> {
        let running = self.running.take().context("the daemon does not run")?;
        Ok(running.finish(STOP_DEADLINE)?.status)
    }

    /// Sends SIGTERM and waits for a clean end; enforcement stays.
    pub(crate) fn stop(&mut self) -> Result<Output> {
        let running = self.running.take().context("the daemon does not run")?;
        running.signal(Signal::SIGTERM)?;
        let output = running.finish(STOP_DEADLINE)?;
        ensure!(output.status.success(), "SIGTERM: {}; log:\n{}", output.status, self.log()?);
        Ok(output)
    }

    /// Removes all enforcement.
    pub(crate) fn unload() -> Result<()> {
        process::run(Command::new(LOCKC).arg("unload"), STOP_DEADLINE)?.success("lockc unload")?;
        let left: Vec<_> =
            fs::read_dir(PINS).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        ensure!(left.is_empty(), "lockc unload leaves {left:?}");
        Ok(())
    }

    /// Waits until the log has a line for which `matches` holds, and gives it.
    pub(crate) fn wait_for_line(
        &self,
        what: &str,
        matches: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let found = wait_for(what, LOG_DEADLINE, || {
            Ok(self.log()?.lines().find(|line| matches(line)).map(str::to_owned))
        });
        found.with_context(|| format!("log:\n{}", tail(&self.log().unwrap_or_default(), 30)))
    }

    /// What `lockc explain` says by the daemon's configuration, and its exit code.
    pub(crate) fn explain(&self, args: &[&str]) -> Result<(Option<i32>, Value)> {
        let mut command = Command::new(LOCKC);
        command.args(["explain", "--format=json", "--config"]).arg(self.config_path()).args(args);
        let output = process::run(&mut command, STOP_DEADLINE)?;
        let said = serde_json::from_str(&output.stdout)
            .with_context(|| format!("lockc explain {args:?}: {output}"))?;
        Ok((output.status.code(), said))
    }

    /// The denials of a container that the log has so far.
    pub(crate) fn denials(&self, container: &str) -> Result<Vec<Denial>> {
        let log = self.log()?;
        Ok(log.lines().filter_map(Denial::parse).filter(|it| it.container == container).collect())
    }

    /// Waits until the log has, for each of `wanted`, a denial of `container`; gives those that did
    /// not come.
    pub(crate) fn missing_denials<'w>(
        &self,
        container: &str,
        wanted: &'w [Wanted<'w>],
    ) -> Result<Vec<&'w Wanted<'w>>> {
        let end = Instant::now() + LOG_DEADLINE;
        loop {
            let denials = self.denials(container)?;
            let missing: Vec<_> = wanted
                .iter()
                .filter(|wanted| !denials.iter().any(|denial| wanted.is_met_by(denial)))
                .collect();
            if missing.is_empty() || Instant::now() > end {
                return Ok(missing);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Lockc {
    fn drop(&mut self) {
        self.kill();
        // Fails only when a test has broken the installation, which it reports itself.
        let _ = Self::unload();
    }
}

/// A denial that must be in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'w> {
    /// Any of these.
    pub(crate) operations: &'w [&'w str],
    /// Name of the process; `None` where a kernel worker does the work.
    pub(crate) comm: Option<&'w str>,
}

impl Wanted<'_> {
    fn is_met_by(&self, denial: &Denial) -> bool {
        self.operations.contains(&denial.operation.as_str())
            && self.comm.is_none_or(|comm| comm == denial.comm)
    }
}

/// One `denied …` line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    pub(crate) operation: String,
    pub(crate) container: String,
    pub(crate) policy: String,
    pub(crate) comm: String,
}

impl Denial {
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once("denied ")?;
        let (operation, rest) = rest.split_once(' ')?;
        let field = |name: &str| {
            let (_, value) = rest.split_once(&format!("{name}="))?;
            Some(value.split(' ').next()?.trim_matches('"').to_owned())
        };
        Some(Self {
            operation: operation.to_owned(),
            container: field("container")?,
            policy: field("policy")?,
            comm: field("comm")?,
        })
    }
}

/// The last `count` lines.
pub(crate) fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// `log` up to its last line end. A line that crosses a page can be seen in part while it is
/// written: a read does not wait for a write to the same file on tmpfs.
fn whole_lines(log: &[u8]) -> &[u8] {
    let end = log.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    &log[..end]
}

#[cfg(test)]
mod tests {
    use super::{Denial, whole_lines};

    #[test]
    fn half_written_lines_are_not_read() {
        assert_eq!(whole_lines(b"a\nb (see `lockc expl"), b"a\n");
        assert_eq!(whole_lines(b"a\nb\n"), b"a\nb\n");
        assert_eq!(whole_lines(b"a"), b"");
    }

    #[test]
    fn denial_lines_are_understood() {
        let line = "[2026-01-01T00:00:00Z WARN  lockc::event] denied foreign-open container=lt-3 \
                    policy=baseline path=/run/secrets/x y pid=31 comm=fd-at";
        assert_eq!(
            Denial::parse(line),
            Some(Denial {
                operation: "foreign-open".to_owned(),
                container: "lt-3".to_owned(),
                policy: "baseline".to_owned(),
                comm: "fd-at".to_owned(),
            })
        );
        assert_eq!(Denial::parse("ready"), None);
    }
}
