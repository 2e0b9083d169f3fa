//! The daemon: starts everything in an order that leaves no gap, waits, stops.

mod keeper;
mod notify;
mod registry;
mod reporter;

use std::{
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};
use thiserror::Error;

use crate::{
    bpf::{
        Kernel, LoadError, host,
        labels::Labels,
        maps::{Maps, take_events},
        self_test::{self, SelfTestError},
    },
    config::Config,
    watch::{gate::Gate, group::Group, runtimes::Runtimes},
};

use self::{keeper::Keeper, registry::Registry, reporter::Reporter};

/// The daemon's own directory.
const DIRECTORY: &str = "/run/lockc";
/// How often stale registrations are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Why the daemon does not run.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The programs are not in force.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// They are loaded and do not work.
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
    /// Another daemon runs.
    #[error("another lockc is running: {} is locked", path.display())]
    Running {
        /// The lock file.
        path: PathBuf,
    },
    /// Something of the daemon's own cannot be set up.
    #[error("cannot {action}: {source}")]
    Setup {
        /// What.
        action: String,
        /// Why.
        source: io::Error,
    },
}

fn setup<E: Into<io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> DaemonError {
    let action = action.into();
    move |source| DaemonError::Setup { action, source: source.into() }
}

/// Runs until SIGTERM or SIGINT. What is enforced stays enforced after that.
pub fn run(config: &Config) -> Result<(), DaemonError> {
    host::check().map_err(LoadError::from)?;
    // Before there are threads, which inherit the mask.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().map_err(setup("block signals"))?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(setup("create a signalfd"))?;

    let directory = Path::new(DIRECTORY);
    fs::create_dir_all(directory).map_err(setup(format!("create {DIRECTORY}")))?;
    let _lock = lock(&directory.join("lock"))?;

    // Runtimes that are executed from here on wait until the gate opens.
    let group = Arc::new(Group::new().map_err(setup("create a fanotify group"))?);
    let runtimes = Arc::new(
        Runtimes::mark(config.runtimes.clone(), Arc::clone(&group))
            .map_err(setup("create an inotify instance"))?,
    );

    let mut kernel = Kernel::load()?;
    match enforce(&mut kernel, config, &runtimes, directory) {
        Ok((maps, keeper, reporter)) => {
            kernel.retire_others().map_err(LoadError::from)?;
            let timeout = config.daemon.decision_timeout;
            runtimes.follow(Arc::clone(&maps)).map_err(setup("start a thread"))?;
            let registry = Arc::clone(keeper.registry());
            reporter.start().map_err(setup("start a thread"))?;
            let gate = Gate::start(group, keeper, timeout).map_err(setup("start a thread"))?;
            log::info!(
                "enforcing: default policy {} ({}), {} runtime files, {} rules",
                config.default.policy,
                config.default_mode(),
                runtimes.files(),
                config.rules.len()
            );
            notify::send("READY=1");
            wait(&signals, &maps, &registry);
            notify::send("STOPPING=1");
            gate.stop();
            log::info!("stopped; running containers stay contained (lockc unload ends that)");
            Ok(())
        }
        Err(error) => {
            kernel.discard();
            Err(error)
        }
    }
}

fn lock(path: &Path) -> Result<Flock<fs::File>, DaemonError> {
    let file = fs::File::create(path).map_err(setup(format!("create {}", path.display())))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => DaemonError::Running { path: path.to_owned() },
        errno => setup(format!("lock {}", path.display()))(errno),
    })
}

/// Fills the maps and proves that the programs use them.
fn enforce(
    kernel: &mut Kernel,
    config: &Config,
    runtimes: &Arc<Runtimes>,
    directory: &Path,
) -> Result<(Arc<Maps>, Keeper, Reporter), DaemonError> {
    let maps = Arc::new(Maps::take(kernel)?);
    let events = take_events(kernel)?;
    let registry = Arc::new(Registry::restore(&maps));
    let keeper = Keeper::new(
        config.clone(),
        Arc::clone(&maps),
        Labels::take(kernel)?,
        Arc::clone(runtimes),
        Arc::clone(&registry),
    )?;
    runtimes.scan(Some(&maps));
    self_test::run(kernel, &maps, directory)?;
    let reporter = Reporter::new(events, Arc::clone(&maps), registry);
    Ok((maps, keeper, reporter))
}

/// Waits for a signal to stop; meanwhile sweeps up registrations whose task was killed before its
/// `execve` went through.
fn wait(signals: &SignalFd, maps: &Maps, registry: &Registry) {
    let timeout = PollTimeout::try_from(SWEEP_EVERY).unwrap_or(PollTimeout::MAX);
    loop {
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) | Err(Errno::EINTR) => registry.sweep(maps),
            Ok(_) => return,
            Err(errno) => {
                log::error!("cannot wait for signals: {errno}");
                return;
            }
        }
    }
}
