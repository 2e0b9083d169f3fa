//! What the daemon knows of itself, for who asks.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    bpf::host::{self, Choice},
    config::Config,
    state::{self, Trouble},
};

/// Errors that are kept, and bytes of each.
const ERRORS: usize = 16;
const MAX_ERROR: usize = 1024;

static LAST_ERRORS: Mutex<VecDeque<Trouble>> = Mutex::new(VecDeque::new());

/// Keeps an error that was logged.
pub fn note_error(message: &str) {
    let mut end = message.len().min(MAX_ERROR);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let trouble = Trouble { time: now(), message: message[..end].to_owned() };
    let mut errors = lock(&LAST_ERRORS);
    if errors.len() == ERRORS {
        errors.pop_front();
    }
    errors.push_back(trouble);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds since the epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Keeps it up to date.
#[derive(Debug)]
pub(super) struct Status(Mutex<state::Status>);

impl Status {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(Mutex::new(state::Status {
            schema: state::SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: host::release(),
            pid: std::process::id(),
            since: now(),
            config: path,
            ..state::Status::default()
        }))
    }

    /// As it is now, without what others count.
    pub(super) fn read(&self) -> state::Status {
        let errors = lock(&LAST_ERRORS).iter().cloned().collect();
        state::Status { errors, ..lock(&self.0).clone() }
    }

    /// A configuration has come into force.
    pub(super) fn in_force(&self, config: &Config, runtime_files: usize) {
        let mut state = lock(&self.0);
        state.in_force_since = now();
        state.stale = None;
        config.default.policy.clone_into(&mut state.default_policy);
        config.default_mode().name().clone_into(&mut state.default_mode);
        state.rules = config.rules.len();
        state.runtime_files = runtime_files;
    }

    /// How the decisions get into the kernel.
    pub(super) fn chosen(&self, choice: &Choice) {
        let mut state = lock(&self.0);
        choice.backend.name().clone_into(&mut state.backend);
        choice.reason.clone_into(&mut state.backend_reason);
        choice.gaps.clone_into(&mut state.gaps);
    }

    /// These programs are attached.
    pub(super) fn attached(&self, hooks: Vec<String>) {
        lock(&self.0).hooks = hooks;
    }

    /// The configuration on disk is the one in force.
    pub(super) fn up_to_date(&self) {
        lock(&self.0).stale = None;
    }

    /// The configuration on disk cannot come into force. False if that was known.
    pub(super) fn stale(&self, problem: &str) -> bool {
        let mut state = lock(&self.0);
        let is_new = state.stale.as_deref() != Some(problem);
        state.stale = Some(problem.to_owned());
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_errors_are_kept() {
        for number in 0..=ERRORS {
            note_error(&format!("error {number} {}", "ä".repeat(MAX_ERROR)));
        }
        let errors = Status::new(PathBuf::new()).read().errors;
        assert_eq!(errors.len(), ERRORS);
        // Other tests may log, too.
        let last = errors.iter().rfind(|it| it.message.starts_with("error 16 ")).unwrap();
        assert!(last.message.len() <= MAX_ERROR && last.message.ends_with('ä'));
        assert!(errors.iter().all(|it| !it.message.starts_with("error 0 ")));
    }

    #[test]
    fn a_problem_is_new_once() {
        let status = Status::new("/etc/lockc/lockc.toml".into());
        assert!(status.stale("a"));
        assert!(!status.stale("a"));
        assert!(status.stale("b"));
        status.in_force(&Config::default(), 3);
        assert_eq!(status.read().stale, None);
        assert!(status.stale("b"));
    }
}
