//! The daemon: starts everything in an order that leaves no gap, waits, stops.

mod adopt;
mod clock;
mod force;
mod keeper;
mod meter;
mod mounts;
mod notify;
mod reconcile;
mod registry;
mod reload;
mod reporter;
mod socket;
mod status;
mod tell;

use std::{
    fs::{self, Permissions},
    io,
    os::{
        fd::AsFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
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
    event::store::Journal,
    state::DIRECTORY,
    watch::{gate::Gate, group::Group, runtimes::Runtimes},
};

use self::{
    adopt::{Adopter, Users},
    clock::ClockWatch,
    force::{Force, InForce},
    keeper::Keeper,
    meter::Meter,
    mounts::MountWatch,
    reconcile::Reconciler,
    registry::Registry,
    reload::Reloader,
    reporter::Reporter,
    socket::Teller,
    status::Status,
};
pub use self::{reload::set_log_level, status::note_error};

/// How often stale registrations are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How long the containers of users are waited for before lockc says that it is ready.
const USERS_PATIENCE: Duration = Duration::from_secs(5);
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

/// The signals that the daemon takes.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks them, which must be before there are threads: these inherit the mask.
    pub fn block() -> Result<Self, DaemonError> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGTERM);
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGHUP);
        signals.thread_block().map_err(setup("block signals"))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&signals, flags).map_err(setup("create a signalfd"))?))
    }
}

/// Enforces `config`, which was read from `path`, and what is found there later, until SIGTERM or
/// SIGINT. What is enforced stays enforced after that.
pub fn run(config: &Config, path: &Path, signals: &Signals) -> Result<(), DaemonError> {
    let choice =
        host::check(config.daemon.backend, config.daemon.require_full).map_err(LoadError::from)?;
    let directory = Path::new(DIRECTORY);
    let _lock = lock(directory)?;

    // Runtimes that are executed from here on wait until the gate opens.
    let group = Arc::new(Group::new().map_err(setup("create a fanotify group"))?);
    let runtimes = Arc::new(
        Runtimes::mark(config.runtimes.clone(), path, Arc::clone(&group))
            .map_err(setup("create an inotify instance"))?,
    );

    // Before the first look at what is mounted.
    let mounts = MountWatch::new().map_err(setup("watch mounts"))?;
    log::info!("backend {}: {}", choice.backend.name(), choice.reason);
    for gap in &choice.gaps {
        log::warn!("not everything is enforced: {gap}");
    }
    let mut kernel = Kernel::load(choice.backend)?;
    match enforce(&mut kernel, config, &runtimes, directory) {
        Ok(Parts {
            maps,
            in_force,
            meter,
            journal,
            keeper,
            reporter,
            registry,
            reconciler,
            mut adopter,
        }) => {
            kernel.retire_others().map_err(LoadError::from)?;
            // Runtimes that are executed meanwhile wait, and find complete what they ask for.
            adopter.take_over(&mut kernel)?;
            let timeout = config.daemon.decision_timeout;
            runtimes.follow(Arc::clone(&maps)).map_err(setup("start a thread"))?;
            reporter.start().map_err(setup("start a thread"))?;
            let pulse = notify::watchdog();
            let gate =
                Gate::start(group, keeper, timeout, pulse).map_err(setup("start a thread"))?;
            let users = Users::look(&runtimes, config.clone()).map_err(setup("start a thread"))?;
            let changed = Arc::new(
                EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                    .map_err(setup("create an eventfd"))?,
            );
            // Before it was told to the programs for the first time nothing was contained.
            let clock = ClockWatch::new().map_err(setup("watch the clock"))?;
            clock.was_set(&maps);
            let status = Arc::new(Status::new(path.to_owned()));
            status.in_force(config, runtimes.files());
            status.attached(kernel.attached());
            status.chosen(&choice);
            let teller = Teller {
                status: Arc::clone(&status),
                maps: Arc::clone(&maps),
                labels: Arc::clone(&adopter.labels),
                registry: Arc::clone(&registry),
                in_force: Arc::clone(&in_force),
                meter,
                journal: journal.clone(),
            };
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
                journal,
                status,
                leaving: Vec::new(),
                mounts_problem: None,
                adopter,
                users: Some(users),
            };
            reloader.adopt_users(USERS_PATIENCE);
            if reloader.users.is_some() {
                log::warn!(
                    "the containers of users are still looked at; what looks like one has the default policy"
                );
            }
            log::info!("enforcing: {}", reloader.summary());
            teller.start(directory, config.daemon.group).map_err(setup("start a thread"))?;
            notify::send("READY=1");
            wait(&signals.0, &changed, &clock, &mounts, &maps, &mut reloader);
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

/// Makes the daemon's own directory, and keeps every other daemon from running, and `lockc unload` from removing what it
/// makes.
pub(crate) fn lock(directory: &Path) -> Result<Flock<fs::File>, DaemonError> {
    let path = directory.join("lock");
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        make_directory(directory).map_err(setup(format!("make {}", directory.display())))?;
        // Who can open it can hold the lock, and keep every daemon from running.
        let file = fs::File::options().create(true).append(true).mode(0o600).open(&path);
        let file = match file {
            // Removed with its directory, since that was made.
            Err(error) if error.kind() == io::ErrorKind::NotFound && Instant::now() < end => {
                continue;
            }
            file => file.map_err(setup(format!("create {}", path.display())))?,
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            // What was removed while it was waited for keeps nobody out.
            Ok(lock) if is_at(&lock, &path) => return Ok(lock),
            Ok(_) | Err((_, Errno::EWOULDBLOCK)) if Instant::now() < end => {}
            Ok(_) | Err((_, Errno::EWOULDBLOCK)) => return Err(DaemonError::Running { path }),
            Err((_, errno)) => return Err(setup(format!("lock {}", path.display()))(errno)),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whoever knows a name in it may get there, and nobody else lists it.
fn make_directory(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o711))
}

/// Whether `path` names this file.
fn is_at(file: &fs::File, path: &Path) -> bool {
    let same = |one: fs::Metadata, other: fs::Metadata| {
        (one.dev(), one.ino()) == (other.dev(), other.ino())
    };
    file.metadata().is_ok_and(|one| fs::symlink_metadata(path).is_ok_and(|other| same(one, other)))
}

/// What enforces.
struct Parts {
    maps: Arc<Maps>,
    in_force: Arc<InForce>,
    meter: Arc<Meter>,
    journal: Journal,
    keeper: Keeper,
    reporter: Reporter,
    registry: Arc<Registry>,
    reconciler: Option<Reconciler>,
    adopter: Adopter,
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
    let end = kernel.skippable_end().map_err(setup("copy a descriptor"))?;
    let loses = end.is_some() || host::loses_tasks();
    let reconciler = loses.then(|| Reconciler::new(Arc::clone(&labels), end));
    let journal = Journal::start(config.events.clone(), config.daemon.group)
        .map_err(setup("start a thread"))?;
    let adopter = Adopter {
        in_force: Arc::clone(&in_force),
        maps: Arc::clone(&maps),
        labels: Arc::clone(&labels),
        registry: Arc::clone(&registry),
        runtimes: Arc::clone(runtimes),
        journal: journal.clone(),
        predecessors: Vec::new(),
    };
    let meter = Arc::new(Meter::default());
    let keeper = Keeper::new(
        Arc::clone(&in_force),
        Arc::clone(&maps),
        labels,
        Arc::clone(runtimes),
        Arc::clone(&registry),
        Arc::clone(&meter),
        journal.clone(),
    );
    runtimes.scan(Some(&maps));
    self_test::run(kernel, &maps, directory)?;
    // Of an earlier daemon, and nobody's any more.
    if let Err(error) = maps.retire_policies(&in_force.get().ids()) {
        // They take room, and nothing else.
        log::error!("policies of an earlier daemon stay: {error}");
    }
    let reporter = Reporter::new(events, Arc::clone(&maps), Arc::clone(&registry), journal.clone());
    Ok(Parts { maps, in_force, meter, journal, keeper, reporter, registry, reconciler, adopter })
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
        let mut fds = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(changed.as_fd(), PollFlags::POLLIN),
            PollFd::new(clock.as_fd(), PollFlags::POLLIN),
        ];
        let follows_mounts = reloader.has_host_paths();
        if follows_mounts {
            fds.push(PollFd::new(mounts.as_fd(), PollFlags::POLLPRI));
        }
        if let Some(users) = &reloader.users {
            fds.push(PollFd::new(users.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, every) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => {
                log::error!("cannot wait for signals: {errno}");
                return;
            }
        }
        let mut woken = fds.iter().map(|fd| fd.any().unwrap_or(false));
        let mut next = || woken.next().unwrap_or(false);
        let (has_signal, has_changed, clock_was_set) = (next(), next(), next());
        let has_mounts = follows_mounts && next();
        drop(woken);
        drop(fds);
        reloader.adopt_users(Duration::ZERO);
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
