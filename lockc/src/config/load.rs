//! Which files are read, and how.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;

use super::{Config, Problem, Report, Severity, read};

/// Where the configuration is, unless another file is named.
pub const PATH: &str = "/etc/lockc/lockc.toml";

/// Directory beside the main file whose `*.toml` are read after it, in the order of their names.
pub const DROP_INS: &str = "lockc.d";

/// Most drop-in files.
pub const MAX_DROP_INS: usize = 64;

/// Most bytes of a configuration file.
pub const MAX_LEN: u64 = 1 << 20;

/// A file of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it is, for messages.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

/// A configuration with everything that is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What it means; `None` if it has mistakes.
    pub config: Option<Config>,
    /// Mistakes and warnings.
    pub report: Report,
    /// Globs of `[[runtime]]` that lockc does not ship itself, with their places.
    runtime_globs: Vec<(String, std::ops::Range<usize>)>,
    sources: Vec<Source>,
}

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
    /// A file, or the directory of drop-ins, cannot be read.
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
    /// More drop-ins than [`MAX_DROP_INS`].
    #[error("{} has more than {MAX_DROP_INS} files", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
    /// Its content is wrong.
    #[error("{0}")]
    Invalid(Report),
}

impl Checked {
    /// Reads the file at `path` and the drop-ins beside it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let mut sources = vec![Source { path: path.to_owned(), text: read_text(path)? }];
        for path in drop_ins(path)? {
            let text = read_text(&path)?;
            sources.push(Source { path, text });
        }
        Ok(Self::new(sources))
    }

    /// Understands the content of files.
    pub fn new(sources: Vec<Source>) -> Self {
        let read::Outcome { config, problems, runtime_globs } = read::read(&sources);
        let report = Report::new(&sources, problems);
        let config = config.filter(|_| !report.has(Severity::Error));
        Self { config, report, runtime_globs, sources }
    }

    /// Warns of globs of runtimes for which `is_unmatched` holds. Those that lockc ships are not
    /// meant: most machines have some of these runtimes only.
    pub fn check_runtimes(&mut self, is_unmatched: impl Fn(&str) -> bool) {
        let globs = self.runtime_globs.iter().filter(|(glob, _)| is_unmatched(glob));
        let problems = globs.map(|(glob, span)| {
            let message = format!("`{}` matches no file now", glob.escape_debug());
            Problem::warning(span.clone(), message)
        });
        let problems: Vec<Problem> = problems.collect();
        self.report.extend(&self.sources, problems);
    }

    /// The files.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The configuration, if all of it can be enforced.
    pub fn usable(self) -> Result<Config, ConfigError> {
        let Self { config, report, .. } = self;
        match config {
            Some(config) if !report.is_fatal() => Ok(config),
            _ => Err(ConfigError::Invalid(report.without_warnings())),
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

/// What decides what the configuration says, as far as it exists: the file at `path`, the directory of
/// drop-ins, and those.
pub fn files(path: &Path) -> Vec<PathBuf> {
    let mut files = vec![path.to_owned(), drop_in_directory(path)];
    files.extend(drop_ins(path).unwrap_or_default());
    files
}

pub fn drop_in_directory(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join(DROP_INS)
}

/// The files of [`DROP_INS`] beside the main file, in the order of their names. Hidden ones are
/// those of editors.
fn drop_ins(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let directory = drop_in_directory(path);
    let failed = |source| ConfigError::Read { path: directory.clone(), source };
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.ends_with(b".toml") && !bytes.starts_with(b".") {
            if files.len() == MAX_DROP_INS {
                return Err(ConfigError::TooMany { path: directory });
            }
            files.push(directory.join(name));
        }
    }
    files.sort();
    Ok(files)
}
