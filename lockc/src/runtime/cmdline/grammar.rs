//! The modelled parsers, and what a command line means once it is taken apart.

use std::path::Path;

use super::{
    CmdlineError, ContainerId, Invocation, Target, Verb, argp, clap, path, shown,
    tables::{self, Command, Kind, Opt, Role},
    urfave,
};

/// A modelled command line parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grammar {
    UrfaveV1,
    UrfaveV1Early,
    UrfaveV3,
    Argp,
    Clap,
}

/// Options and operands, as one parser tells them apart.
#[derive(Debug, Default)]
pub(super) struct Scan<'a> {
    pub(super) options: Vec<(Role, Option<&'a [u8]>)>,
    pub(super) operands: Vec<&'a [u8]>,
}

impl<'a> Scan<'a> {
    /// The value that counts: the last one.
    pub(super) fn last(&self, role: Role) -> Option<&'a [u8]> {
        self.options.iter().rev().find(|(r, _)| *r == role).and_then(|(_, value)| *value)
    }

    pub(super) fn has(&self, role: Role) -> bool {
        self.options.iter().any(|(r, _)| *r == role)
    }
}

/// How a parser treats words after the first operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// They may be options.
    Interspersed,
    /// They are operands, whatever they look like.
    Operands,
}

impl Grammar {
    pub(super) fn parse(self, words: &[Vec<u8>], cut: bool) -> Result<Invocation, CmdlineError> {
        // runc looks at its first argument before it parses anything (init.go, 1.0 and later).
        if self.is_urfave() && words.first().is_some_and(|word| word == b"init") {
            return Ok(Invocation { root: None, verb: Verb::Init });
        }
        let globals = self.globals();
        let global = self.scan(&[globals], words, Rest::Operands)?;
        let Some((name, _)) = global.operands.split_first() else {
            // Without a command the runtimes print their help or an error; with part of the list
            // missing, the command may be there.
            return if cut && !global.has(Role::Help) {
                Err(CmdlineError::Cut { command: "" })
            } else {
                Ok(Invocation { root: path(global.last(Role::Root)), verb: Verb::Other })
            };
        };
        if global.has(Role::Help) {
            return Ok(Invocation { root: path(global.last(Role::Root)), verb: Verb::Other });
        }
        let command = self
            .commands()
            .iter()
            .find(|command| command.names.iter().any(|n| n.as_bytes() == *name))
            .ok_or_else(|| CmdlineError::UnknownCommand { word: shown(name) })?;
        // The operands are a suffix of `words`: scanning globals stops at the first of them.
        let words = &words[words.len() + 1 - global.operands.len()..];
        self.parse_command(command, globals, &global, words, cut)
    }

    fn parse_command(
        self,
        command: &Command,
        globals: &[Opt],
        global: &Scan<'_>,
        words: &[Vec<u8>],
        cut: bool,
    ) -> Result<Invocation, CmdlineError> {
        let root = path(global.last(Role::Root));
        if command.kind == Kind::Other {
            return Ok(Invocation { root, verb: Verb::Other });
        }
        // urfave/cli 3 hands its global options down to the commands.
        let inherited: &[Opt] = if self == Self::UrfaveV3 { globals } else { &[] };
        let scan = self.scan(&[command.options, inherited], words, self.rest(command.kind))?;
        let root = path(scan.last(Role::Root)).or(root);
        if scan.has(Role::Help) || scan.has(Role::Pattern) {
            return Ok(Invocation { root, verb: Verb::Other });
        }
        let name = command.names[0];
        if cut && command.kind != Kind::Exec {
            return Err(CmdlineError::Cut { command: name });
        }
        let count = scan.operands.len();
        let most = match command.kind {
            Kind::Exec => usize::MAX,
            // crun allows a second word here (crun_assert_n_args, src/restore.c, 1.20).
            Kind::Restore | Kind::Checkpoint if self == Self::Argp => 2,
            _ => 1,
        };
        let id = match scan.operands.first() {
            Some(id) if count <= most => self.id(id)?,
            None if cut => return Err(CmdlineError::Cut { command: name }),
            _ => return Err(CmdlineError::Operands { command: name, count }),
        };
        let verb = match command.kind {
            Kind::Create => Verb::Create(self.target(id, &scan)?),
            Kind::Run => Verb::Run(self.target(id, &scan)?),
            Kind::Restore => Verb::Restore(self.target(id, &scan)?),
            Kind::Exec => Verb::Exec(id),
            Kind::Checkpoint => Verb::Checkpoint(id),
            Kind::Start => Verb::Start(id),
            Kind::Delete => Verb::Delete(id),
            Kind::Other => Verb::Other,
        };
        Ok(Invocation { root, verb })
    }

    fn is_urfave(self) -> bool {
        matches!(self, Self::UrfaveV1 | Self::UrfaveV1Early | Self::UrfaveV3)
    }

    fn globals(self) -> &'static [Opt] {
        match self {
            Self::UrfaveV1 | Self::UrfaveV1Early | Self::UrfaveV3 => tables::RUNC_GLOBALS,
            Self::Argp => tables::CRUN_GLOBALS,
            Self::Clap => tables::YOUKI_GLOBALS,
        }
    }

    fn commands(self) -> &'static [Command] {
        match self {
            Self::UrfaveV1 | Self::UrfaveV1Early | Self::UrfaveV3 => tables::RUNC_COMMANDS,
            Self::Argp => tables::CRUN_COMMANDS,
            Self::Clap => tables::YOUKI_COMMANDS,
        }
    }

    fn rest(self, kind: Kind) -> Rest {
        match (self, kind) {
            // runc sets SkipArgReorder (1.x) or StopOnNthArg (later) for exec alone. The id is the
            // first operand everywhere, so what follows it cannot matter.
            (_, Kind::Exec) | (Self::Argp, _) => Rest::Operands,
            _ => Rest::Interspersed,
        }
    }

    fn scan<'a>(
        self,
        tables: &[&[Opt]],
        words: &'a [Vec<u8>],
        rest: Rest,
    ) -> Result<Scan<'a>, CmdlineError> {
        match self {
            Self::UrfaveV1 => urfave::scan_v1(tables, words, rest, false),
            Self::UrfaveV1Early => urfave::scan_v1(tables, words, rest, true),
            Self::UrfaveV3 => urfave::scan_v3(tables, words, rest),
            Self::Argp => argp::scan(tables, words),
            Self::Clap => clap::scan(tables, words, rest),
        }
    }

    fn id(self, word: &[u8]) -> Result<ContainerId, CmdlineError> {
        // `^[\w+-\.]+$` (libcontainer/factory_linux.go, runc 1.1); later versions allow less.
        let runc = |b: &u8| b.is_ascii_alphanumeric() || b"_+,-.".contains(b);
        if self.is_urfave() && !word.iter().all(runc) {
            return Err(CmdlineError::BadId { word: shown(word) });
        }
        ContainerId::new(word).ok_or_else(|| CmdlineError::BadId { word: shown(word) })
    }

    fn target(self, id: ContainerId, scan: &Scan<'_>) -> Result<Target, CmdlineError> {
        let mut bundle = path(scan.last(Role::Bundle));
        if bundle.as_deref() == Some(Path::new("")) {
            if !self.is_urfave() {
                return Err(CmdlineError::MissingValue { word: "--bundle".to_owned() });
            }
            // runc changes its directory only if the option is not empty (utils_linux.go, 1.1).
            bundle = None;
        }
        let config = path(scan.last(Role::Config)).filter(|config| {
            // crun compares with its default and takes that from the bundle
            // (crun_run_create_internal, src/run_create.c, 1.20).
            config.as_os_str() != "config.json"
        });
        if self.is_urfave() && config.as_ref().is_some_and(|config| config.is_relative()) {
            // What it is relative to is not settled in any release.
            return Err(CmdlineError::BadValue { word: "--config".to_owned() });
        }
        Ok(Target { id, bundle, config })
    }
}
