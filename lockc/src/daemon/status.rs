//! What the daemon says of itself, for `lockc status`.

use std::{fs, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Config;

/// The daemon's own directory.
pub const DIRECTORY: &str = "/run/lockc";
/// Name of the file in it.
const FILE: &str = "status.json";

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Process id of the daemon.
    pub pid: u32,
    /// The configuration's main file.
    pub config: PathBuf,
    /// When what is in force was read, in seconds since the epoch.
    pub in_force_since: u64,
    /// Why the configuration on disk is not in force; `None` if it is.
    pub stale: Option<String>,
    /// Name of the default policy.
    pub default_policy: String,
    /// Its mode.
    pub default_mode: String,
    /// Number of rules.
    pub rules: usize,
    /// Number of files that are watched as runtimes.
    pub runtime_files: usize,
}

impl State {
    /// What the last daemon wrote.
    pub fn read() -> io::Result<Self> {
        let text = fs::read(format!("{DIRECTORY}/{FILE}"))?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    }
}

/// Keeps the file.
#[derive(Debug)]
pub(super) struct Status(std::sync::Mutex<State>);

impl Status {
    pub(super) fn new(path: PathBuf) -> Self {
        let state = State { pid: std::process::id(), config: path, ..State::default() };
        Self(std::sync::Mutex::new(state))
    }

    /// A configuration has come into force.
    pub(super) fn in_force(&self, config: &Config, runtime_files: usize) {
        self.change(|state| {
            state.in_force_since = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs());
            state.stale = None;
            config.default.policy.clone_into(&mut state.default_policy);
            config.default_mode().name().clone_into(&mut state.default_mode);
            state.rules = config.rules.len();
            state.runtime_files = runtime_files;
        });
    }

    /// The configuration on disk is the one in force.
    pub(super) fn up_to_date(&self) {
        self.change(|state| state.stale = None);
    }

    /// The configuration on disk cannot come into force. False if that was known.
    pub(super) fn stale(&self, problem: &str) -> bool {
        let mut is_new = false;
        self.change(|state| {
            is_new = state.stale.as_deref() != Some(problem);
            state.stale = Some(problem.to_owned());
        });
        is_new
    }

    fn change(&self, with: impl FnOnce(&mut State)) {
        let mut state = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        with(&mut state);
        if let Err(error) = write(&state) {
            // Nothing but `lockc status` depends on it.
            log::error!("cannot write {DIRECTORY}/{FILE}: {error}");
        }
    }
}

/// Whoever reads sees the old file or the new one.
fn write(state: &State) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(state).map_err(io::Error::other)?;
    let new = format!("{DIRECTORY}/{FILE}.new");
    fs::write(&new, text)?;
    fs::rename(new, format!("{DIRECTORY}/{FILE}"))
}
