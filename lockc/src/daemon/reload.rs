//! A changed configuration takes effect while containers run.

use std::{
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use lockc_common::SELF_TEST;
use log::{Level, LevelFilter};
use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::eventfd::EventFd,
};

use super::{
    adopt::{Adopter, Users},
    force::{Force, InForce},
    keeper::Keeper,
    mounts,
    reconcile::Reconciler,
    registry::{Origin, Registry},
    status::Status,
    tell::{POLICY, Placed},
};
use crate::{
    bpf::{Kernel, LoadError, calls, maps::Maps},
    config::{Checked, Config, DROP_INS},
    event::store::Journal,
    policy::Decision,
    watch::{config::ConfigWatch, gate::Gate, runtimes::Runtimes},
};

/// How long nothing must happen before a changed configuration is read, in milliseconds.
const QUIET: u8 = 20;
/// When it is read at the latest.
const SETTLED_BY: Duration = Duration::from_millis(100);

/// Everything that a configuration has an influence on.
pub(super) struct Reloader {
    pub(super) path: PathBuf,
    pub(super) watch: Option<ConfigWatch>,
    pub(super) kernel: Kernel,
    pub(super) maps: Arc<Maps>,
    pub(super) registry: Arc<Registry>,
    /// Where the kernel may miss the end of a task.
    pub(super) reconciler: Option<Reconciler>,
    pub(super) runtimes: Arc<Runtimes>,
    pub(super) in_force: Arc<InForce>,
    pub(super) gate: Arc<Gate<Keeper>>,
    pub(super) journal: Journal,
    pub(super) status: Arc<Status>,
    /// Earlier ones that a decision under way may still go by.
    pub(super) leaving: Vec<Arc<Force>>,
    /// Why host paths could not follow the last change of what is mounted.
    pub(super) mounts_problem: Option<String>,
    pub(super) adopter: Adopter,
    /// While the containers of users are looked at.
    pub(super) users: Option<Users>,
}

impl Reloader {
    /// Reads the configuration again. Unless all of it can be enforced, what is in force stays.
    pub(super) fn reload(&mut self) {
        let start = Instant::now();
        // Before reading: what changes from here on wakes us again.
        if let Some(watch) = &self.watch
            && let Err(error) = watch.refresh()
        {
            log::error!("changes of the configuration may go unnoticed: {error}");
        }
        let config = match Checked::read(&self.path).and_then(Checked::usable) {
            Ok(config) => config,
            Err(error) => return self.keep(&error.to_string()),
        };
        let current = self.in_force.get();
        if config == current.config {
            self.status.up_to_date();
            // Links may lead elsewhere, which nobody tells.
            return self.follow_mounts();
        }
        if let Err(error) = self.apply(config, &current) {
            return self.keep(&error.to_string());
        }
        self.leaving.push(current);
        self.follow();
        self.status.in_force(&self.in_force.get().config, self.runtimes.files());
        self.status.attached(self.kernel.attached());
        log::info!(
            "configuration in force after {} ms: {}",
            start.elapsed().as_millis(),
            self.summary()
        );
    }

    /// Whether some policy depends on what is mounted.
    pub(super) fn has_host_paths(&self) -> bool {
        !self.in_force.get().host.is_empty()
    }

    /// Puts host paths out of reach where they are now. If that fails, what is in force stays.
    pub(super) fn follow_mounts(&mut self) {
        let current = self.in_force.get();
        let problem = match mounts::resolve(&current.config) {
            Ok(host) if host == current.host => None,
            Ok(host) => {
                match Force::install_at(current.config.clone(), host, &self.maps, &mut self.kernel)
                {
                    Ok(force) => {
                        // The policies keep their ids, so that decisions under way stay good.
                        self.in_force.replace(force);
                        log::info!("host paths follow what is mounted now");
                        None
                    }
                    Err(error) => Some(error.to_string()),
                }
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = &problem
            && self.mounts_problem.as_ref() != Some(problem)
        {
            log::error!("host paths stay where they were when something was mounted: {problem}");
        }
        self.mounts_problem = problem;
    }

    /// Adopts the containers of users, once they are known.
    pub(super) fn adopt_users(&mut self, patience: Duration) {
        let Some(users) = &self.users else { return };
        let outcome = match users.take(patience) {
            None => return,
            Some(Ok(judged)) => {
                self.adopter.adopt_users(&mut self.kernel, &judged).map_err(|it| it.to_string())
            }
            Some(Err(error)) => Err(error.to_string()),
        };
        if let Err(why) = outcome {
            log::error!("containers of users that ran before lockc keep what they have: {why}");
        }
        self.users = None;
    }

    /// What is in force, for people.
    pub(super) fn summary(&self) -> String {
        let force = self.in_force.get();
        format!(
            "default policy {} ({}), {} runtime files, {} rules",
            force.config.default.policy,
            force.config.default_mode(),
            self.runtimes.files(),
            force.config.rules.len()
        )
    }

    fn keep(&self, problem: &str) {
        if self.status.stale(problem) {
            log::error!("the configuration in force stays: {problem}");
        }
    }

    fn apply(&mut self, config: Config, current: &Force) -> Result<(), LoadError> {
        let runtimes = config.runtimes.clone();
        let force = Force::install(config, &self.maps, &mut self.kernel)?;
        // The default may be another policy; whoever has the old one as the default follows.
        let (before, after) = (current.default_id(), force.default_id());
        let (old, new) = (&current.config.daemon, &force.config.daemon);
        for (key, has_changed) in [
            ("log_format", old.log_format != new.log_format),
            ("group", old.group != new.group),
            ("backend", old.backend != new.backend),
            ("require_full", old.require_full != new.require_full),
        ] {
            if has_changed {
                log::warn!("daemon.{key} changes when lockc is restarted");
            }
        }
        set_log_level(force.config.daemon.log_level);
        self.journal.move_to(force.config.events.clone());
        self.gate.set_timeout(force.config.daemon.decision_timeout);
        self.in_force.replace(force);
        if before != after {
            let config = &self.in_force.get().config;
            let decision = Decision::fallback(config, "the default policy is another one");
            for handle in self.maps.handles() {
                let is_unknown = self.registry.origin(handle).is_none();
                if is_unknown && self.maps.container(handle).is_some_and(|it| it.policy == before) {
                    self.place(handle, after, &decision, None);
                }
            }
        }
        if runtimes != current.config.runtimes {
            self.runtimes.configure(runtimes, &self.maps);
            self.adopter.adopt(&mut self.kernel)?;
        }
        Ok(())
    }

    /// Gives containers the policies that they would get now, and drops policies that nobody has. Once
    /// more after the last decision by an earlier configuration.
    pub(super) fn sweep(&mut self) {
        self.registry.sweep(&self.maps);
        if let Some(reconciler) = &mut self.reconciler {
            reconciler.run(&self.maps, &self.registry);
        }
        let before = self.leaving.len();
        self.leaving.retain(|force| Arc::strong_count(force) > 1);
        if before > 0 && self.leaving.is_empty() {
            self.follow();
            let force = self.in_force.get();
            if let Err(error) = self.maps.retire_policies(&force.ids()) {
                log::error!("policies that are not in force stay: {error}");
            }
            self.kernel.detach_unneeded(self.maps.flags_in_use());
            self.status.attached(self.kernel.attached());
        }
    }

    fn follow(&self) {
        let force = self.in_force.get();
        for handle in self.maps.handles() {
            let Some(record) = self.maps.container(handle) else { continue };
            let origin = self.registry.origin(handle);
            let mut decision = match &origin {
                Some(origin) => origin.decide(&force.config),
                None if force.named(record.policy).is_some() => continue,
                None if handle & SELF_TEST != 0 => continue,
                // Of an earlier daemon.
                None => Decision::fallback(&force.config, "its policy is not configured any more"),
            };
            let wanted = force.id(&decision.policy, decision.mode).unwrap_or_else(|| {
                decision = Decision::fallback(&force.config, "its policy is not installed");
                force.default_id()
            });
            if wanted != record.policy {
                self.place(handle, wanted, &decision, origin.as_deref());
            }
        }
    }

    /// Gives a container another policy, and says so.
    fn place(&self, handle: u64, policy: u32, decision: &Decision, origin: Option<&Origin>) {
        calls::move_container(handle, u64::from(policy));
        if handle & SELF_TEST != 0 {
            return;
        }
        let id = self.registry.shown_id(handle);
        let message =
            format!("container={id} has policy={} mode={} now", decision.policy, decision.mode);
        Placed { handle, pid: 0, decision, origin }.tell(
            POLICY,
            Level::Info,
            &message,
            &self.registry,
            &self.journal,
        );
    }
}

/// `RUST_LOG` wins: it is a filter of its own, and the level is left alone.
pub fn set_log_level(level: LevelFilter) {
    if std::env::var_os("RUST_LOG").is_none() {
        log::set_max_level(level);
    }
}

/// Wakes through `changed` when the files at `path` and beside it may have changed. Without, only SIGHUP
/// does.
pub(super) fn watch(path: &Path, changed: &Arc<EventFd>) -> Option<ConfigWatch> {
    let directory = path.parent().unwrap_or(Path::new(""));
    let paths = vec![path.to_owned(), directory.join(DROP_INS)];
    let changed = Arc::clone(changed);
    let wake = move || {
        // Refuses only when its counter is full, and then it wakes as it is.
        let _ = changed.write(1);
    };
    ConfigWatch::start(paths, wake)
        .inspect_err(|error| {
            log::error!("changes of {} are noticed on SIGHUP only: {error}", path.display());
        })
        .ok()
}

/// Waits until nothing more happens for a moment: a file that is being written, or several files, come
/// in one go.
pub(super) fn settle(changed: &EventFd) {
    let end = Instant::now() + SETTLED_BY;
    loop {
        // What it counted does not matter; an error is that there was nothing.
        let _ = changed.read();
        let mut fds = [PollFd::new(changed.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, QUIET) {
            Ok(count) if count > 0 && Instant::now() < end => {}
            _ => return,
        }
    }
}
