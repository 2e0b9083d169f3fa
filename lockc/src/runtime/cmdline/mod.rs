//! Command lines of OCI runtimes: which container, which bundle, what for.
//!
//! Pure: bytes in, [`Invocation`] out. The words come from a process that we do
//! not control, so they are bytes, and anything doubtful is an error: a `create`
//! must never be taken for something harmless. An error is not a refusal; the
//! caller falls back to the default policy (`daemon.on_error`).
//!
//! Each runtime parses its words its own way, and the differences decide which
//! bundle is used:
//!
//! | runtime | parser | consequence |
//! |---|---|---|
//! | runc 1.0–1.4 | urfave/cli 1.22 over Go's `flag` | `-bundle x`; words are reordered before they are parsed, except for `exec` |
//! | runc after 1.4 | urfave/cli 3 | options anywhere; global options also after the command |
//! | crun | glibc argp, in order | options before the id only; `-bDIR`; abbreviations |
//! | youki | clap 4 | options anywhere; `-bDIR`, `-b=DIR`; no repetition |
//!
//! So every parser is modelled as it is. A runtime of which we know only the
//! name is read by all of them: those that understand the words must agree.

mod argp;
mod clap;
mod grammar;
mod tables;
#[cfg(test)]
mod tests;
mod urfave;

use std::{ffi::OsString, fmt, os::unix::ffi::OsStringExt as _, path::PathBuf};

use self::grammar::Grammar;

/// Whose command line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// runc 1.0 and later.
    Runc,
    /// crun, also under the names `krun` and `crun-HANDLER`.
    Crun,
    /// youki.
    Youki,
    /// Any other runtime: what all of the above that understand it agree on.
    Unknown,
}

impl Dialect {
    /// The dialect of the runtime called `name`: a `[[runtime]]` name or the
    /// base name of an executable.
    pub fn of(name: &str) -> Self {
        match name {
            "runc" => Self::Runc,
            // crun runs as `krun` or `crun-HANDLER` too (fill_handler_from_argv0, src/crun.c, 1.20).
            "crun" | "krun" => Self::Crun,
            _ if name.starts_with("crun-") => Self::Crun,
            "youki" => Self::Youki,
            _ => Self::Unknown,
        }
    }

    fn grammars(self) -> &'static [Grammar] {
        match self {
            Self::Runc => &[Grammar::UrfaveV1, Grammar::UrfaveV1Early, Grammar::UrfaveV3],
            Self::Crun => &[Grammar::Argp],
            Self::Youki => &[Grammar::Clap],
            Self::Unknown => &[
                Grammar::UrfaveV1,
                Grammar::UrfaveV1Early,
                Grammar::UrfaveV3,
                Grammar::Argp,
                Grammar::Clap,
            ],
        }
    }
}

/// A container's id as given on the command line: any bytes but `/` and NUL, and
/// never empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(Vec<u8>);

impl ContainerId {
    /// Takes `id` unless no runtime could accept it.
    pub fn new(id: impl Into<Vec<u8>>) -> Option<Self> {
        let id = id.into();
        let possible = !id.is_empty() && !id.contains(&b'/') && !id.contains(&0);
        possible.then_some(Self(id))
    }

    /// The id's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// `--root` as given; `None` means the runtime's default.
    pub root: Option<PathBuf>,
    /// The command.
    pub verb: Verb,
}

/// The command of an [`Invocation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Sets a container up.
    Create(Target),
    /// Sets a container up and starts it.
    Run(Target),
    /// Makes a container from a checkpoint.
    Restore(Target),
    /// Adds a process to a container.
    Exec(ContainerId),
    /// Freezes a container into files.
    Checkpoint(ContainerId),
    /// Lets a created container run.
    Start(ContainerId),
    /// Removes a container.
    Delete(ContainerId),
    /// `runc init`: a runtime that executes itself on the way into a container.
    Init,
    /// Nothing that makes a process in a container: `list`, `kill`, `--version` …
    Other,
}

/// What a container is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The container's id.
    pub id: ContainerId,
    /// `--bundle` as given; `None` means the caller's working directory.
    pub bundle: Option<PathBuf>,
    /// `--config`, relative to the *caller's* working directory; `None` means
    /// `config.json` in the bundle.
    pub config: Option<PathBuf>,
}

/// Why a command line is not understood. Words are shown escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CmdlineError {
    /// There is not even a program name.
    #[error("the argument list is empty")]
    Empty,
    /// The reader stopped before the end, so options may be missing.
    #[error("the argument list of `{command}` is too long to be read in full")]
    Cut {
        /// The runtime's command.
        command: &'static str,
    },
    /// The command is none that we know, so it may do anything.
    #[error("unknown command `{word}`")]
    UnknownCommand {
        /// The word in the command's place.
        word: String,
    },
    /// The option is none that we know, so we cannot tell whether it takes a value.
    #[error("unknown option `{word}`")]
    UnknownOption {
        /// The option as given.
        word: String,
    },
    /// An abbreviation of several options.
    #[error("option `{word}` is ambiguous")]
    AmbiguousOption {
        /// The option as given.
        word: String,
    },
    /// An option that needs a value has none.
    #[error("option `{word}` has no value")]
    MissingValue {
        /// The option as given.
        word: String,
    },
    /// A value that the option cannot have.
    #[error("option `{word}` has a value that it cannot have")]
    BadValue {
        /// The option as given.
        word: String,
    },
    /// An option that may be given once was given again.
    #[error("option `{word}` is given more than once")]
    RepeatedOption {
        /// The option as given.
        word: String,
    },
    /// Too few or too many words beside the options.
    #[error("`{command}` has {count} operands")]
    Operands {
        /// The runtime's command.
        command: &'static str,
        /// Words that are neither options nor values.
        count: usize,
    },
    /// The id is one that no runtime accepts.
    #[error("`{word}` is not a container id")]
    BadId {
        /// The word in the id's place.
        word: String,
    },
    /// The parsers of the known runtimes understand different things.
    #[error("the command line means different things to different runtimes")]
    Ambiguous,
}

/// Understands the argument list `words` (with the program's name) of a runtime.
///
/// `cut` says that `words` is only the beginning of the list: then commands that
/// need all of it are errors.
pub fn parse(dialect: Dialect, words: &[Vec<u8>], cut: bool) -> Result<Invocation, CmdlineError> {
    let Some((_, words)) = words.split_first() else { return Err(CmdlineError::Empty) };
    let mut understood: Option<Invocation> = None;
    let mut first_error = None;
    for grammar in dialect.grammars() {
        match (grammar.parse(words, cut), &understood) {
            (Ok(invocation), None) => understood = Some(invocation),
            (Ok(invocation), Some(other)) if invocation != *other => {
                return Err(CmdlineError::Ambiguous);
            }
            (Ok(_), Some(_)) => {}
            (Err(error), _) => _ = first_error.get_or_insert(error),
        }
    }
    understood.ok_or(first_error.unwrap_or(CmdlineError::Empty))
}

/// Bytes as shown in messages.
fn shown(word: &[u8]) -> String {
    const LONGEST: usize = 128;
    match word.get(..LONGEST) {
        Some(start) => format!("{}…", start.escape_ascii()),
        None => word.escape_ascii().to_string(),
    }
}

fn path(value: Option<&[u8]>) -> Option<PathBuf> {
    value.map(|bytes| PathBuf::from(OsString::from_vec(bytes.to_vec())))
}
