//! The daemon: starts everything in an order that leaves no gap, waits, stops.

mod clock;
mod force;
mod keeper;
mod mounts;
mod notify;
mod reconcile;
mod registry;
mod reload;
mod reporter;
pub mod status;

use std::{
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::{EfdFlags, EventFd},
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

pub use self::reload::set_log_level;
use self::{
    clock::ClockWatch,
    force::{Force, InForce},
    keeper::Keeper,
    mounts::MountWatch,
    reconcile::Reconciler,
    registry::Registry,
    reload::Reloader,
    reporter::Reporter,
    status::{DIRECTORY, Status},
};

/// How often stale registrations are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How long the lock is waited for: `lockc status` holds it for a moment.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);

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

/// Enforces `config`, which was read from `path`, and what is found there later, until SIGTERM or
/// SIGINT. What is enforced stays enforced after that.
pub fn run(config: &Config, path: &Path) -> Result<(), DaemonError> {
    host::check().map_err(LoadError::from)?;
    // Before there are threads, which inherit the mask.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGHUP);
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

    // Before the first look at what is mounted.
    let mounts = MountWatch::new().map_err(setup("watch mounts"))?;
    let mut kernel = Kernel::load()?;
    match enforce(&mut kernel, config, &runtimes, directory) {
        Ok(Parts { maps, in_force, keeper, reporter, registry, reconciler }) => {
            kernel.retire_others().map_err(LoadError::from)?;
            let timeout = config.daemon.decision_timeout;
            runtimes.follow(Arc::clone(&maps)).map_err(setup("start a thread"))?;
            reporter.start().map_err(setup("start a thread"))?;
            let gate = Gate::start(group, keeper, timeout).map_err(setup("start a thread"))?;
            let changed = Arc::new(
                EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                    .map_err(setup("create an eventfd"))?,
            );
            // Before it was told to the programs for the first time nothing was contained.
            let clock = ClockWatch::new().map_err(setup("watch the clock"))?;
            clock.was_set(&maps);
            let status = Status::new(path.to_owned());
            status.in_force(config, runtimes.files());
            let mut reloader = Reloader {
                path: path.to_owned(),
                kernel,
                watch: reload::watch(path, &changed),
                maps: Arc::clone(&maps),
                registry,
                reconciler,
                runtimes,
                in_force,
                gate,
                status,
                leaving: Vec::new(),
                mounts_problem: None,
            };
            log::info!("enforcing: {}", reloader.summary());
            notify::send("READY=1");
            wait(&signals, &changed, &clock, &mounts, &maps, &mut reloader);
            notify::send("STOPPING=1");
            reloader.gate.stop();
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
    let mut file = fs::File::create(path).map_err(setup(format!("create {}", path.display())))?;
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, Errno::EWOULDBLOCK)) if Instant::now() < end => file,
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(DaemonError::Running { path: path.to_owned() });
            }
            Err((_, errno)) => return Err(setup(format!("lock {}", path.display()))(errno)),
        };
        thread::sleep(Duration::from_millis(10));
    }
}

/// What enforces.
struct Parts {
    maps: Arc<Maps>,
    in_force: Arc<InForce>,
    keeper: Keeper,
    reporter: Reporter,
    registry: Arc<Registry>,
    reconciler: Option<Reconciler>,
}

/// Fills the maps and proves that the programs use them.
fn enforce(
    kernel: &mut Kernel,
    config: &Config,
    runtimes: &Arc<Runtimes>,
    directory: &Path,
) -> Result<Parts, DaemonError> {
    let maps = Arc::new(Maps::take(kernel)?);
    clock::tell(&maps)?;
    let events = take_events(kernel)?;
    let registry = Arc::new(Registry::restore(&maps));
    let in_force = Arc::new(InForce::new(Force::install(config.clone(), &maps, kernel)?));
    let labels = Arc::new(Labels::take(kernel)?);
    let reconciler = host::loses_tasks().then(|| Reconciler::new(Arc::clone(&labels)));
    let keeper = Keeper::new(
        Arc::clone(&in_force),
        Arc::clone(&maps),
        labels,
        Arc::clone(runtimes),
        Arc::clone(&registry),
    );
    runtimes.scan(Some(&maps));
    self_test::run(kernel, &maps, directory)?;
    // Of an earlier daemon, and nobody's any more.
    if let Err(error) = maps.retire_policies(&in_force.get().ids()) {
        // They take room, and nothing else.
        log::error!("policies of an earlier daemon stay: {error}");
    }
    let reporter = Reporter::new(events, Arc::clone(&maps), Arc::clone(&registry));
    Ok(Parts { maps, in_force, keeper, reporter, registry, reconciler })
}

/// Waits for a signal to stop. Meanwhile tells the programs when the clock is set, reads the configuration again when
/// it may have changed, follows what is mounted, and sweeps up registrations whose task was killed before its `execve`
/// went through.
fn wait(
    signals: &SignalFd,
    changed: &EventFd,
    clock: &ClockWatch,
    mounts: &MountWatch,
    maps: &Maps,
    reloader: &mut Reloader,
) {
    let every = PollTimeout::try_from(SWEEP_EVERY).unwrap_or(PollTimeout::MAX);
    loop {
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(changed.as_fd(), PollFlags::POLLIN),
            PollFd::new(clock.as_fd(), PollFlags::POLLIN),
            // Last, so that it can be left out.
            PollFd::new(mounts.as_fd(), PollFlags::POLLPRI),
        ];
        let watched = if reloader.has_host_paths() { fds.len() } else { fds.len() - 1 };
        match poll(&mut fds[..watched], every) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => {
                log::error!("cannot wait for signals: {errno}");
                return;
            }
        }
        let [has_signal, has_changed, clock_was_set, has_mounts] =
            fds.map(|fd| fd.any().unwrap_or(false));
        if has_signal {
            match signals.read_signal() {
                Ok(Some(signal)) if signal.ssi_signo == Signal::SIGHUP as u32 => reloader.reload(),
                Ok(None) => {}
                Ok(Some(_)) => return,
                Err(errno) => {
                    log::error!("cannot read a signal: {errno}");
                    return;
                }
            }
        }
        if clock_was_set {
            clock.was_set(maps);
        }
        if has_changed {
            reload::settle(changed);
            reloader.reload();
        }
        if has_mounts {
            reloader.follow_mounts();
        }
        reloader.sweep();
    }
}
