//! Commands and options of the known runtimes, with all their versions merged:
//! an option that one version lacks makes that version fail, which harms nobody,
//! while an option missing here would make its command line unknown.

/// What follows an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arg {
    None,
    Required,
    /// Attached, or absent.
    Optional,
}

/// What an option means to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing.
    Plain,
    Root,
    Bundle,
    Config,
    /// Makes the runtime print something and exit.
    Help,
    /// Makes the operand a pattern instead of an id.
    Pattern,
}

/// An option; its long name is empty when it has only a short one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opt {
    pub(super) long: &'static str,
    pub(super) short: Option<u8>,
    pub(super) arg: Arg,
    pub(super) role: Role,
}

const fn flag(long: &'static str) -> Opt {
    Opt { long, short: None, arg: Arg::None, role: Role::Plain }
}

const fn value(long: &'static str) -> Opt {
    Opt { arg: Arg::Required, ..flag(long) }
}

impl Opt {
    const fn short(self, letter: u8) -> Self {
        Self { short: Some(letter), ..self }
    }

    const fn role(self, role: Role) -> Self {
        Self { role, ..self }
    }

    const fn optional(self) -> Self {
        Self { arg: Arg::Optional, ..self }
    }
}

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Create,
    Run,
    Restore,
    Exec,
    Checkpoint,
    Start,
    Delete,
    Other,
}

/// A command with its options.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    pub(super) names: &'static [&'static str],
    pub(super) kind: Kind,
    pub(super) options: &'static [Opt],
}

const fn command(names: &'static [&'static str], kind: Kind, options: &'static [Opt]) -> Command {
    Command { names, kind, options }
}

const HELP: Opt = flag("help").short(b'h').role(Role::Help);
const BUNDLE: Opt = value("bundle").short(b'b').role(Role::Bundle);
const ROOT: Opt = value("root").role(Role::Root);

// runc: main.go, create.go, run.go, exec.go, restore.go, checkpoint.go, delete.go of 1.0 to 1.4
// and of the main branch of 2026.

pub(super) const RUNC_GLOBALS: &[Opt] = &[
    HELP,
    flag("version").short(b'v').role(Role::Help),
    flag("debug"),
    value("log"),
    value("log-format"),
    ROOT,
    value("criu"),
    flag("systemd-cgroup"),
    value("rootless"),
];

const RUNC_CREATE: &[Opt] = &[
    HELP,
    BUNDLE,
    value("config").role(Role::Config),
    value("console-socket"),
    value("pidfd-socket"),
    value("pid-file"),
    value("preserve-fds"),
    flag("no-pivot"),
    flag("no-new-keyring"),
];

const RUNC_RUN: &[Opt] = &[
    HELP,
    BUNDLE,
    value("config").role(Role::Config),
    value("console-socket"),
    value("pidfd-socket"),
    value("pid-file"),
    value("preserve-fds"),
    flag("no-pivot"),
    flag("no-new-keyring"),
    flag("detach").short(b'd'),
    flag("keep"),
    flag("no-subreaper"),
];

const RUNC_EXEC: &[Opt] = &[
    HELP,
    value("console-socket"),
    value("pidfd-socket"),
    value("cwd"),
    value("env").short(b'e'),
    flag("tty").short(b't'),
    value("user").short(b'u'),
    value("additional-gids").short(b'g'),
    value("process").short(b'p'),
    flag("detach").short(b'd'),
    value("pid-file"),
    value("process-label"),
    value("apparmor"),
    flag("no-new-privs"),
    value("cap").short(b'c'),
    value("preserve-fds"),
    value("cgroup"),
    flag("ignore-paused"),
    flag("no-subreaper"),
];

const RUNC_RESTORE: &[Opt] = &[
    HELP,
    BUNDLE,
    value("config").role(Role::Config),
    value("console-socket"),
    value("image-path"),
    value("work-path"),
    flag("tcp-established"),
    flag("ext-unix-sk"),
    flag("shell-job"),
    flag("file-locks"),
    value("manage-cgroups-mode"),
    flag("detach").short(b'd'),
    value("pid-file"),
    flag("no-subreaper"),
    flag("no-pivot"),
    value("empty-ns"),
    flag("auto-dedup"),
    flag("lazy-pages"),
    value("lsm-profile"),
    value("lsm-mount-context"),
];

const RUNC_CHECKPOINT: &[Opt] = &[
    HELP,
    value("image-path"),
    value("work-path"),
    value("parent-path"),
    flag("leave-running"),
    flag("tcp-established"),
    flag("tcp-skip-in-flight"),
    flag("link-remap"),
    flag("ext-unix-sk"),
    flag("shell-job"),
    flag("lazy-pages"),
    value("status-fd"),
    value("page-server"),
    flag("file-locks"),
    flag("pre-dump"),
    value("manage-cgroups-mode"),
    value("empty-ns"),
    flag("auto-dedup"),
];

pub(super) const RUNC_COMMANDS: &[Command] = &[
    command(&["create"], Kind::Create, RUNC_CREATE),
    command(&["run"], Kind::Run, RUNC_RUN),
    command(&["exec"], Kind::Exec, RUNC_EXEC),
    command(&["restore"], Kind::Restore, RUNC_RESTORE),
    command(&["checkpoint"], Kind::Checkpoint, RUNC_CHECKPOINT),
    command(&["start"], Kind::Start, &[HELP]),
    command(&["delete"], Kind::Delete, &[HELP, flag("force").short(b'f')]),
    command(
        &[
            "events", "features", "help", "h", "init", "kill", "list", "pause", "ps", "resume",
            "spec", "state", "update",
        ],
        Kind::Other,
        &[],
    ),
];

// crun: crun.c, create.c, run.c, exec.c, restore.c, checkpoint.c, delete.c in src/ of 1.8 to 1.20.

/// Options that argp adds to every parser (argp/argp-parse.c, glibc 2.36).
pub(super) const ARGP_DEFAULTS: &[Opt] = &[
    flag("help").short(b'?').role(Role::Help),
    flag("usage").role(Role::Help),
    value("program-name"),
    value("HANG").optional(),
];

pub(super) const CRUN_GLOBALS: &[Opt] = &[
    flag("debug"),
    value("cgroup-manager"),
    flag("systemd-cgroup"),
    value("log"),
    value("log-format"),
    value("log-level"),
    ROOT,
    value("rootless"),
    flag("version").short(b'v').role(Role::Help),
    flag("").short(b'V').role(Role::Help),
];

const CRUN_VERSION: Opt = flag("version").short(b'V').role(Role::Help);

const CRUN_CREATE: &[Opt] = &[
    CRUN_VERSION,
    BUNDLE,
    value("config").short(b'f').role(Role::Config),
    value("console-socket"),
    value("preserve-fds"),
    flag("no-pivot"),
    value("pid-file"),
    flag("no-subreaper"),
    flag("no-new-keyring"),
];

const CRUN_RUN: &[Opt] = &[
    CRUN_VERSION,
    BUNDLE,
    value("config").short(b'f').role(Role::Config),
    value("console-socket"),
    value("preserve-fds"),
    flag("no-pivot"),
    value("pid-file"),
    flag("no-subreaper"),
    flag("no-new-keyring"),
    flag("detach").short(b'd'),
    flag("keep"),
];

const CRUN_EXEC: &[Opt] = &[
    CRUN_VERSION,
    value("console-socket"),
    value("tty").short(b't').optional(),
    value("process").short(b'p'),
    value("cwd"),
    value("cgroup"),
    flag("detach").short(b'd'),
    value("user").short(b'u'),
    value("env").short(b'e'),
    value("cap").short(b'c'),
    value("pid-file"),
    value("preserve-fds"),
    flag("no-new-privs"),
    value("process-label"),
    value("apparmor"),
];

const CRUN_RESTORE: &[Opt] = &[
    CRUN_VERSION,
    BUNDLE,
    value("image-path"),
    value("work-path"),
    flag("tcp-established"),
    flag("ext-unix-sk"),
    flag("shell-job"),
    flag("detach").short(b'd'),
    value("pid-file"),
    value("console-socket"),
    flag("file-locks"),
    value("manage-cgroups-mode"),
    value("lsm-profile"),
    value("lsm-mount-context"),
];

const CRUN_CHECKPOINT: &[Opt] = &[
    CRUN_VERSION,
    value("image-path"),
    value("work-path"),
    value("parent-path"),
    flag("leave-running"),
    flag("tcp-established"),
    flag("ext-unix-sk"),
    flag("shell-job"),
    flag("file-locks"),
    flag("pre-dump"),
    value("manage-cgroups-mode"),
    value("network-lock"),
];

pub(super) const CRUN_COMMANDS: &[Command] = &[
    command(&["create"], Kind::Create, CRUN_CREATE),
    command(&["run"], Kind::Run, CRUN_RUN),
    command(&["exec"], Kind::Exec, CRUN_EXEC),
    command(&["restore"], Kind::Restore, CRUN_RESTORE),
    command(&["checkpoint"], Kind::Checkpoint, CRUN_CHECKPOINT),
    command(&["start"], Kind::Start, &[CRUN_VERSION]),
    command(
        &["delete"],
        Kind::Delete,
        &[CRUN_VERSION, flag("force").short(b'f'), flag("regex").short(b'r').role(Role::Pattern)],
    ),
    command(
        &["features", "kill", "list", "mounts", "pause", "ps", "resume", "spec", "state", "update"],
        Kind::Other,
        &[],
    ),
];

// youki: crates/liboci-cli/src and crates/youki/src/main.rs of 0.3 to 0.7, which has no restore.

pub(super) const YOUKI_GLOBALS: &[Opt] = &[
    HELP,
    flag("version").short(b'V').role(Role::Help),
    value("log").short(b'l'),
    flag("debug"),
    value("log-level"),
    value("log-format"),
    ROOT.short(b'r'),
    flag("systemd-cgroup").short(b's'),
];

const YOUKI_CREATE: &[Opt] = &[
    HELP,
    BUNDLE,
    value("console-socket").short(b'c'),
    value("pid-file").short(b'p'),
    flag("no-pivot"),
    flag("no-new-keyring"),
    value("preserve-fds"),
];

const YOUKI_RUN: &[Opt] = &[
    HELP,
    BUNDLE,
    value("console-socket").short(b'c'),
    value("pid-file").short(b'p'),
    flag("no-subreaper"),
    flag("no-pivot"),
    flag("no-new-keyring"),
    value("preserve-fds"),
    flag("keep"),
    flag("detach").short(b'd'),
];

const YOUKI_EXEC: &[Opt] = &[
    HELP,
    value("console-socket"),
    value("cwd"),
    value("env").short(b'e'),
    flag("tty").short(b't'),
    value("user").short(b'u'),
    value("additional-gids").short(b'g'),
    value("process").short(b'p'),
    flag("detach").short(b'd'),
    value("pid-file"),
    value("process-label"),
    value("apparmor"),
    flag("no-new-privs"),
    value("cap"),
    value("preserve-fds"),
    flag("ignore-paused"),
    value("cgroup"),
];

const YOUKI_RESTORE: &[Opt] = &[
    HELP,
    value("bundle").role(Role::Bundle),
    value("image-path"),
    value("work-path"),
    value("pid-file"),
    flag("shell-job"),
];

const YOUKI_CHECKPOINT: &[Opt] = &[
    HELP,
    value("image-path"),
    value("work-path"),
    value("parent-path"),
    flag("leave-running"),
    flag("tcp-established"),
    flag("link-remap"),
    flag("ext-unix-sk"),
    flag("shell-job"),
    flag("lazy-pages"),
    value("status-fd"),
    value("page-server"),
    flag("file-locks"),
    flag("pre-dump"),
    value("manage-cgroups-mode"),
    flag("empty-ns"),
    flag("auto-dedup"),
];

pub(super) const YOUKI_COMMANDS: &[Command] = &[
    command(&["create"], Kind::Create, YOUKI_CREATE),
    command(&["run"], Kind::Run, YOUKI_RUN),
    command(&["exec"], Kind::Exec, YOUKI_EXEC),
    command(&["restore"], Kind::Restore, YOUKI_RESTORE),
    // `Checkpointt` is how youki spells the variant that names the command.
    command(&["checkpoint", "checkpointt"], Kind::Checkpoint, YOUKI_CHECKPOINT),
    command(&["start"], Kind::Start, &[HELP]),
    command(&["delete"], Kind::Delete, &[HELP, flag("force").short(b'f')]),
    command(
        &[
            "completion",
            "events",
            "features",
            "help",
            "info",
            "kill",
            "list",
            "pause",
            "ps",
            "resume",
            "spec",
            "state",
            "update",
        ],
        Kind::Other,
        &[],
    ),
];
