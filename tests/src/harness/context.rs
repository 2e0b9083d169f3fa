//! What a test is given.

use std::{
    cell::{Cell, RefCell, RefMut},
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    bundle::{Bundle, LEVEL},
    container::{Container, Runtime},
    daemon::Lockc,
    fixture::{self, SECRET, SERVICE_ACCOUNT, TokenVolume},
    policies::OWN,
};

/// Where the runtimes are looked for: name and candidates. The first that is there serves tests
/// that need one only: runc below 1.2 copies itself at every start, which takes an emulated machine
/// several times as long.
const RUNTIMES: [(&str, &[&str]); 4] = [
    ("runc-new", &["/opt/runc-new/runc"]),
    ("runc", &["/usr/bin/runc", "/usr/sbin/runc"]),
    ("crun", &["/usr/bin/crun"]),
    ("youki", &["/usr/bin/youki"]),
];

/// What admission looks at.
const CONTROLS: [&str; 13] = [
    "host_namespaces",
    "privileged",
    "capabilities",
    "host_paths",
    "runtime_sockets",
    "devices",
    "apparmor",
    "selinux",
    "proc_mount",
    "seccomp",
    "sysctls",
    "privilege_escalation",
    "run_as_non_root",
];

/// Whether lockc is on while a test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// lockc is not loaded.
    Off,
    /// One daemon, shared by the tests of this phase, enforces [`Context::config`].
    On,
    /// The test starts and stops lockc itself.
    Own,
}

/// The built-in policies that enforce, and the one that does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Baseline,
    Restricted,
    Privileged,
    Offline,
    /// One of [`OWN`].
    Own(&'static str),
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
            Self::Privileged => "privileged",
            Self::Offline => "offline",
            Self::Own(name) => name,
        }
    }

    /// Makes the tests' configuration give a bundle this policy.
    pub(crate) fn annotate(self, bundle: &mut Bundle) {
        // Baseline is what a container gets that says nothing.
        if self != Self::Baseline {
            bundle.annotation(LEVEL, self.name());
        }
    }
}

/// How much the tests that count do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amounts {
    /// Containers started at once in the tests of the first instant.
    pub(crate) containers: usize,
    /// Of these, how many at the same time.
    pub(crate) parallel: usize,
    /// Starts of containers that fail.
    pub(crate) failures: usize,
    /// Containers that end at once.
    pub(crate) short: usize,
    /// Changes of the configuration in a row.
    pub(crate) reloads: usize,
    /// Restarts of the daemon under a running container.
    pub(crate) restarts: usize,
    /// How long that container rests between two attempts: without rest it takes an emulated machine's one processor from
    /// the daemon.
    pub(crate) rest: Duration,
    /// Containers that run at the same time in the tests of scale.
    pub(crate) crowd: usize,
    /// Tasks that all of these have together.
    pub(crate) tasks: usize,
    /// Starts that are under way at once.
    pub(crate) in_flight: usize,
    /// Whether runtimes that take turns do not.
    pub(crate) every_runtime: bool,
    /// Longest time that a test may take; the longest takes six minutes on a machine with nothing else to do.
    pub(crate) longest: Duration,
}

impl Amounts {
    /// What an emulated machine does in minutes.
    pub(crate) const SMALL: Self = Self {
        containers: 12,
        parallel: 4,
        failures: 50,
        short: 200,
        reloads: 30,
        restarts: 3,
        rest: Duration::ZERO,
        crowd: 20,
        tasks: 1000,
        in_flight: 20,
        every_runtime: false,
        longest: Duration::from_mins(20),
    };
}

/// What a test is given.
#[derive(Debug)]
pub(crate) struct Context {
    scratch: PathBuf,
    runtimes: Vec<Runtime>,
    current: Cell<usize>,
    phase: Cell<Phase>,
    ids: Cell<u32>,
    token: TokenVolume,
    lockc: RefCell<Option<Lockc>>,
    records: RefCell<HashMap<String, String>>,
    checks_itself: bool,
    pub(crate) amounts: Amounts,
}

impl Context {
    /// Prepares image, token and files in a new scratch directory; finds the runtimes, or only
    /// `runtime`. With `checks_itself`, tests also check that they can be relied upon.
    pub(crate) fn new(
        runtime: Option<&str>,
        amounts: Amounts,
        checks_itself: bool,
    ) -> Result<Self> {
        // Containers' users must be able to reach the root file systems in it.
        let scratch = PathBuf::from(format!("/tmp/lockc-tests.{}", std::process::id()));
        fs::create_dir_all(&scratch).with_context(|| format!("create {}", scratch.display()))?;
        let runtimes: Vec<Runtime> = RUNTIMES
            .iter()
            .filter(|(name, _)| runtime.is_none_or(|wanted| wanted == *name))
            .filter_map(|(name, paths)| {
                let binary = paths.iter().find_map(|path| fs::canonicalize(path).ok())?;
                Some(Runtime { name, binary, state: scratch.join("state").join(name), user: None })
            })
            .collect();
        ensure!(!runtimes.is_empty(), "none of the runtimes asked for is installed");
        let context = Self {
            token: TokenVolume::new(&scratch.join("token"))?,
            scratch,
            runtimes,
            current: Cell::new(0),
            phase: Cell::new(Phase::Off),
            ids: Cell::new(0),
            lockc: RefCell::new(None),
            records: RefCell::new(HashMap::new()),
            checks_itself,
            amounts,
        };
        fixture::image(&context.image(), &fixture::busybox()?)?;
        fs::create_dir_all(context.host_dir())?;
        fs::write(context.host_dir().join("secret"), format!("{SECRET}\n"))?;
        fs::create_dir_all(context.node_bin())?;
        fs::create_dir_all(context.swap_dir())?;
        Ok(context)
    }

    /// Directory for everything the tests make.
    pub(crate) fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// The root file system that containers share.
    pub(crate) fn image(&self) -> PathBuf {
        self.scratch.join("image")
    }

    /// A directory of the host with a file `secret`.
    pub(crate) fn host_dir(&self) -> PathBuf {
        self.scratch.join("host")
    }

    /// A directory of the host for copies of runtimes, all of which are configured as runtimes.
    pub(crate) fn node_bin(&self) -> PathBuf {
        self.scratch.join("node-bin")
    }

    /// As [`Context::node_bin`], for runtimes that get replaced.
    pub(crate) fn swap_dir(&self) -> PathBuf {
        self.scratch.join("swap-bin")
    }

    pub(crate) fn token(&self) -> &TokenVolume {
        &self.token
    }

    /// The runtimes that can be relied on; youki only if it was asked for.
    pub(crate) fn runtimes(&self) -> &[Runtime] {
        match self.runtimes.split_last() {
            Some((last, others)) if last.kind() == "youki" && !others.is_empty() => others,
            _ => &self.runtimes,
        }
    }

    /// All that there are.
    pub(crate) fn every_runtime(&self) -> &[Runtime] {
        &self.runtimes
    }

    /// Does without a runtime.
    pub(crate) fn leave_out(&mut self, name: &str) {
        self.runtimes.retain(|runtime| runtime.name != name);
    }

    /// The runtime that the test is to use.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtimes[self.current.get()]
    }

    /// The one that takes an emulated machine the least time, for tests that are not about runtimes.
    pub(crate) fn quickest(&self) -> &Runtime {
        self.runtimes().last().unwrap_or_else(|| self.runtime())
    }

    pub(super) fn use_runtime(&self, index: usize) {
        self.current.set(index);
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.set(phase);
    }

    /// Whether tests are to check themselves, too.
    pub(crate) fn is_checking_itself(&self) -> bool {
        self.checks_itself
    }

    /// The daemon of the phase [`Phase::On`].
    pub(crate) fn lockc(&self) -> RefMut<'_, Option<Lockc>> {
        self.lockc.borrow_mut()
    }

    /// Runs `with` with the daemon that enforces.
    pub(crate) fn with_lockc<T>(&self, with: impl FnOnce(&mut Lockc) -> Result<T>) -> Result<T> {
        with(self.lockc().as_mut().context("lockc is not on")?)
    }

    /// Starts a daemon for a test of its own.
    pub(crate) fn start_lockc(&self, config: &str) -> Result<Lockc> {
        Lockc::start(&self.scratch.join("lockc"), config)
    }

    /// A configuration that knows the runtimes and the copies, and chooses by annotation.
    pub(crate) fn config(&self) -> String {
        let built_in = [Level::Restricted, Level::Privileged, Level::Offline].map(Level::name);
        let own = || OWN.iter().map(|(name, _)| *name);
        let rules = built_in.into_iter().chain(own()).map(|name| {
            format!(
                "[[rule]]\nname = \"{name}\"\npolicy = \"{name}\"\ntrust_claims = true\n\
                 match.annotation.\"{LEVEL}\" = \"{name}\"\n"
            )
        });
        // Or attackers would not start.
        let admit = CONTROLS.map(|control| {
            // Off, it would allow to use such a socket.
            let handling = if control == "runtime_sockets" { "audit" } else { "off" };
            format!("{control} = \"{handling}\"\n")
        });
        // Or attacks from user namespaces and through rings would end before they reach what they are about.
        let admit = ["baseline", "restricted", "offline"].map(|level| {
            format!(
                "[policy.{level}]\nuser_namespaces = \"allow\"\nio_uring = \"allow\"\n\
                 [policy.{level}.admission]\n{}",
                admit.concat()
            )
        });
        let own = OWN.iter().map(|(name, table)| format!("[policy.{name}]\n{table}"));
        format!(
            "[daemon]\nrequire_full = false\nlog_level = \"info\"\nlog_format = \"text\"\n\
             [default]\npolicy = \"baseline\"\n{}{}{}{}",
            self.runtime_tables(),
            rules.collect::<String>(),
            admit.concat(),
            own.collect::<String>()
        )
    }

    /// A configuration that knows the runtimes and the copies, and says nothing else.
    pub(crate) fn runtime_tables(&self) -> String {
        let runtimes = ["runc", "crun", "youki"].map(|kind| {
            let installed = self.runtimes.iter().filter(|runtime| runtime.kind() == kind);
            let mut paths: Vec<PathBuf> = installed
                .flat_map(|runtime| [runtime.binary.clone(), self.swap_dir().join(runtime.name)])
                .collect();
            if kind == "runc" {
                paths.push(self.node_bin().join("runc-*"));
            }
            if paths.is_empty() {
                return String::new();
            }
            let state: Vec<&PathBuf> = self
                .runtimes
                .iter()
                .filter(|runtime| runtime.kind() == kind)
                .map(|runtime| &runtime.state)
                .collect();
            format!("[[runtime]]\nname = \"{kind}\"\npaths = {paths:?}\nstate = {state:?}\n")
        });
        runtimes.concat()
    }

    /// A new container id.
    pub(crate) fn id(&self, what: &str) -> String {
        self.ids.set(self.ids.get() + 1);
        format!("lt-{}-{what}", self.ids.get())
    }

    /// A bundle that runs `args` in the shared image.
    pub(crate) fn bundle(&self, id: &str, args: &[&str]) -> Bundle {
        Bundle::new(self.scratch.join("bundles").join(id), &self.image(), args)
    }

    /// A bundle whose container has the token mounted, as kubelet does it.
    pub(crate) fn token_bundle(&self, id: &str, args: &[&str]) -> Bundle {
        let mut bundle = self.bundle(id, args);
        bundle.bind(self.token.dir(), SERVICE_ACCOUNT);
        bundle
    }

    /// Runs `args` in a container with the current runtime.
    pub(crate) fn container(
        &self,
        what: &str,
        setup: impl FnOnce(&mut Bundle),
    ) -> Result<Container> {
        let id = self.id(what);
        let mut bundle = self.bundle(&id, &[]);
        setup(&mut bundle);
        Container::new(self.runtime(), &id, &bundle)
    }

    /// The policies that an attack is tried under, the one that denies nothing last; without lockc,
    /// where the policy does not matter, that alone. Policies do not depend on the runtime, so that
    /// the two that enforce are told apart with the first one only.
    pub(crate) fn levels(&self) -> &'static [Level] {
        match (self.phase(), self.current.get()) {
            (Phase::Off, _) => &[Level::Privileged],
            (_, 0) => &[Level::Baseline, Level::Restricted, Level::Privileged],
            _ => &[Level::Baseline, Level::Privileged],
        }
    }

    /// Keeps what was seen with lockc off for the phase with lockc on.
    pub(crate) fn record(&self, key: &str, value: String) {
        self.records.borrow_mut().insert(self.key(key), value);
    }

    /// What the same test recorded with lockc off.
    pub(crate) fn recorded(&self, key: &str) -> Result<String> {
        let key = self.key(key);
        let value = self.records.borrow().get(&key).cloned();
        value.with_context(|| format!("nothing recorded as {key}"))
    }

    fn key(&self, key: &str) -> String {
        format!("{}/{key}", self.runtime().name)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.lockc.borrow_mut().take();
        // The token's tmpfs must be gone before its mount point can be removed.
        let _ = nix::mount::umount2(self.token.dir(), nix::mount::MntFlags::MNT_DETACH);
        let _ = fs::remove_dir_all(&self.scratch);
    }
}
