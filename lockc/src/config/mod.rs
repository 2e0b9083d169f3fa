//! The configuration: what was typed, and what it means.
//!
//! `/etc/lockc/lockc.toml` is checked in full before any of it counts, and all
//! problems are reported together, each with its place and, for a misspelt name,
//! a suggestion. A key that exists in the configuration's contract but is not
//! implemented is refused like an unknown one: a rule that is silently ignored
//! would be worse than none.

mod expand;
mod problem;
mod read;
mod reader;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use globset::{GlobBuilder, GlobMatcher};
use log::LevelFilter;
use nix::fcntl::OFlag;

pub use self::{
    expand::{Expansion, MAX_ENTRIES_READ, MAX_FILES, expand},
    problem::{Problem, Report},
};
use crate::policy::{Level, Mode};

/// Where the configuration is, unless another file is named.
pub const PATH: &str = "/etc/lockc/lockc.toml";

/// Most bytes of a configuration file.
pub const MAX_LEN: u64 = 1 << 20;

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[daemon]`.
    pub daemon: Daemon,
    /// `[[runtime]]`, in order. Without any, the built-in list applies.
    pub runtimes: Vec<Runtime>,
    /// `[default]`.
    pub default: Fallback,
    /// `[[rule]]`, in order.
    pub rules: Vec<Rule>,
}

/// `[daemon]`: how lockc itself behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Least severity that is logged; `RUST_LOG` wins.
    pub log_level: LevelFilter,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What a container gets whose command line or bundle is not understood.
    pub on_error: OnError,
    /// How long a runtime may wait for its answer.
    pub decision_timeout: Duration,
}

/// `daemon.log_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `daemon.on_error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The default policy.
    Default,
    /// The runtime is not executed.
    Deny,
}

/// `[[runtime]]`: an OCI runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Its name, which says how its command line is read, and by which the kernel
    /// side recognises it: at most [`lockc_common::NAME_LEN`] bytes.
    pub name: String,
    /// Its executables: absolute paths whose components may be globs.
    pub paths: Vec<String>,
}

/// `[default]`: what a container gets if no rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// The policy.
    pub policy: Level,
    /// Whether policies are enforced; for all containers.
    pub mode: Mode,
}

/// `[[rule]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, for messages; unique.
    pub name: String,
    /// What the containers get that match.
    pub policy: Level,
    /// Which containers match.
    pub matches: Match,
}

/// `match`: all of it must hold. Nothing means every container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Annotations by key; each must be there.
    pub annotations: BTreeMap<String, Pattern>,
}

impl Match {
    /// Whether the annotations of a bundle hold all that is asked for.
    pub fn annotations_match(&self, annotations: &BTreeMap<String, String>) -> bool {
        self.annotations
            .iter()
            .all(|(key, pattern)| annotations.get(key).is_some_and(|v| pattern.is_match(v)))
    }

    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.annotations.is_empty()
    }
}

/// A glob over a whole value: `?`, `*` (with `/`), `[a-z]`, `{a,b}`.
#[derive(Clone)]
pub struct Pattern {
    glob: GlobMatcher,
}

impl Pattern {
    fn new(glob: &str) -> Result<Self, globset::Error> {
        let glob = GlobBuilder::new(glob).literal_separator(false).build()?;
        Ok(Self { glob: glob.compile_matcher() })
    }

    /// Whether `value` as a whole matches.
    pub fn is_match(&self, value: &str) -> bool {
        self.glob.is_match(value)
    }

    /// The glob as typed.
    pub fn as_str(&self) -> &str {
        self.glob.glob().glob()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file does not exist.
    #[error(
        "{} does not exist; install the one that lockc ships (examples/config/lockc.toml), or \
         name another with --config",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a FIFO or a device.
    #[error("{} is not a regular file", path.display())]
    FileType {
        /// The file.
        path: PathBuf,
    },
    /// It is longer than [`MAX_LEN`].
    #[error("{} is longer than {MAX_LEN} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It is no text.
    #[error("{} is not UTF-8 at line {line}, byte {column}", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Byte in the line, from 1.
        column: usize,
    },
    /// Further files that this version would not read.
    #[error(
        "{} exists, but reading more than one file is not supported; move it into the main file",
        path.display()
    )]
    DropIn {
        /// One of the files.
        path: PathBuf,
    },
    /// Its content is wrong.
    #[error("{0}")]
    Invalid(Report),
}

impl Config {
    /// Reads the file at `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read_text(path)?;
        if let Some(path) = drop_in(path) {
            return Err(ConfigError::DropIn { path });
        }
        Self::parse(&text, path)
    }

    /// Understands the content of a file; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        read::read(text)
            .map_err(|problems| ConfigError::Invalid(Report::new(path.to_owned(), text, problems)))
    }
}

/// What `examples/config/lockc.toml` says.
impl Default for Config {
    fn default() -> Self {
        let runtime = |name: &str, paths: &[&str]| Runtime {
            name: name.to_owned(),
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        };
        Self {
            daemon: Daemon {
                log_level: LevelFilter::Info,
                log_format: LogFormat::Text,
                on_error: OnError::Default,
                decision_timeout: Duration::from_secs(2),
            },
            runtimes: vec![
                runtime(
                    "runc",
                    &[
                        "/usr/bin/runc",
                        "/usr/sbin/runc",
                        "/usr/local/bin/runc",
                        "/usr/local/sbin/runc",
                        "/var/lib/rancher/k3s/data/*/bin/runc",
                    ],
                ),
                runtime("crun", &["/usr/bin/crun", "/usr/local/bin/crun"]),
                runtime("youki", &["/usr/bin/youki", "/usr/local/bin/youki"]),
            ],
            default: Fallback { policy: Level::Baseline, mode: Mode::Enforce },
            rules: Vec::new(),
        }
    }
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing { path: path.to_owned() },
        _ => ConfigError::Read { path: path.to_owned(), source },
    };
    // A FIFO would wait for a writer.
    let file = File::options()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(ConfigError::FileType { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(ConfigError::TooLong { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        ConfigError::NotUtf8 {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.len() - line_start + 1,
        }
    })
}

/// A file of `lockc.d` beside the main file.
fn drop_in(path: &Path) -> Option<PathBuf> {
    let dir = path.parent()?.join("lockc.d");
    let files = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
    files.filter(|file| file.extension().is_some_and(|extension| extension == "toml")).min()
}
