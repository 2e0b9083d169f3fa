//! Proof that the programs run and are obeyed: attached is not the same as fired.
//!
//! For each program something is tried that it is asked about: by the daemon, which is contained by nothing, and by a
//! child of a thread that becomes a contained task, under a policy that allows everything and under one that denies it.
//! Programs of an earlier daemon ignore this label, so the answers come from the new ones.

mod attempts;
mod fires;
mod pass;
mod place;
mod verdict;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use lockc_common::{PathVerdict, PolicyFlags};
use thiserror::Error;

use self::{
    attempts::{ATTEMPTS, Attempt, Outcome},
    pass::{Contained, Host},
    place::Place,
    verdict::Trial,
};
use super::{
    calls,
    load::{Kernel, LoadError},
    maps::{CompiledPolicy, Maps},
};

/// All that the attempts are about.
const DENIED: u32 = PolicyFlags::KERNEL_LOG
    | PolicyFlags::MOUNT
    | PolicyFlags::RUNTIME_FILES
    | PolicyFlags::PATHS
    | PolicyFlags::DEVICES
    | PolicyFlags::KERNEL_CALLS
    | PolicyFlags::PROCESSES
    | PolicyFlags::NETWORK_NONE
    | PolicyFlags::RUNTIME_SOCKETS
    | PolicyFlags::FILELESS
    | PolicyFlags::ROOT
    | PolicyFlags::USER_NAMESPACES
    | PolicyFlags::IO_URING
    | PolicyFlags::TERMINAL_INPUT;

/// Why the programs cannot be trusted.
#[derive(Debug, Error)]
pub enum SelfTestError {
    /// The test could not be set up.
    #[error("self-test: cannot prepare {}: {source}", path.display())]
    Prepare {
        /// What could not be prepared.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The test's policy could not be installed.
    #[error("self-test: {0}")]
    Policy(#[from] LoadError),
    /// The label did not arrive: the uprobes do not fire.
    #[error("self-test: the kernel did not take up the registration; uprobes do not fire")]
    NotLabelled,
    /// Something allowed was denied.
    #[error("self-test: {program} denies what is allowed")]
    AllowFailed {
        /// The program.
        program: &'static str,
    },
    /// Something denied did not fail with EPERM.
    #[error(
        "self-test: {program} should deny what was tried, but {found}: the program is attached and the kernel does \
         not heed it"
    )]
    DenyFailed {
        /// The program.
        program: &'static str,
        /// What happened.
        found: String,
    },
    /// Programs did not run at what they are attached to.
    #[error(
        "self-test: {} attached and did not run: this kernel asks elsewhere",
        programs.join(", ")
    )]
    Silent {
        /// Their names.
        programs: Vec<String>,
    },
}

/// What is tried, and what comes of it where nothing is contained.
type Tried = (&'static Attempt, Outcome);

/// Tries what each program allows and denies. `directory` is the daemon's own, under `/run`.
pub fn run(kernel: &Kernel, maps: &Maps, directory: &Path) -> Result<(), SelfTestError> {
    let base = fs::canonicalize(directory)
        .map_err(|source| SelfTestError::Prepare { path: directory.to_owned(), source })?;
    let counters = fires::Counters::turn_on()?;
    let attempts: Vec<_> = ATTEMPTS.iter().filter(|it| kernel.has_attached(it.program)).collect();
    let host = pass::make(&base, &attempts, &Host)?;
    let tried: Vec<_> = attempts.into_iter().zip(host).collect();
    let untold = contained(kernel, maps, &base, &tried)?;
    if !untold.is_empty() {
        log::debug!("self-test: this machine refuses what is asked of {}", untold.join(", "));
    }
    // The last: if it has to wait, it holds no descriptor that a pass waits for.
    fires::execute();
    counters.wait(kernel, &refused(&tried))
}

/// What comes of attempts by contained tasks. Gives the programs of which it tells nothing here.
fn contained(
    kernel: &Kernel,
    maps: &Maps,
    base: &Path,
    tried: &[Tried],
) -> Result<Vec<&'static str>, SelfTestError> {
    let mut rule = Place::directory(base).into_os_string().into_encoded_bytes();
    rule.push(b'/');
    let policies = maps.install(&[
        policy("self-test-allow", 0, Vec::new()),
        policy("self-test-deny", DENIED, vec![(rule, PathVerdict::Deny)]),
    ])?;
    let id = |number: usize| u64::from(policies.get(number).copied().unwrap_or(u32::MAX));
    let tried: Vec<_> = tried.iter().copied().filter(|(attempt, _)| attempt.is_denied).collect();
    let attempts: Vec<_> = tried.iter().map(|(attempt, _)| *attempt).collect();
    let actor = Contained::enter(id(0));
    if maps.container(kernel.self_test).is_none() {
        return Err(SelfTestError::NotLabelled);
    }
    let allowed = pass::make(base, &attempts, &actor)?;
    // A second record would be left by the children of the first.
    calls::move_container(kernel.self_test, id(1));
    let denied = pass::make(base, &attempts, &actor)?;
    drop(actor);
    // The kernel frees tasks later than they end, and till then the record would keep its policy from being retired.
    maps.drop_container(kernel.self_test);
    let outcomes = tried.into_iter().zip(allowed).zip(denied);
    let mut untold = Vec::new();
    for (((attempt, host), allowed), denied) in outcomes {
        if !verdict::judge(&Trial { attempt, host, allowed, denied })? {
            untold.push(attempt.program);
        }
    }
    Ok(untold)
}

fn policy(name: &str, flags: u32, paths: Vec<(Vec<u8>, PathVerdict)>) -> CompiledPolicy {
    CompiledPolicy {
        name: name.into(),
        flags,
        exec: Vec::new(),
        host: Vec::new(),
        network: Vec::new(),
        paths,
    }
}

/// Programs that nothing of what was tried may have come to.
fn refused(tried: &[Tried]) -> Vec<&'static str> {
    let is_refused = |program| {
        let mut outcomes = tried.iter().filter(|(attempt, _)| attempt.program == program);
        outcomes.all(|(_, host)| verdict::is_refused(*host))
    };
    tried.iter().map(|(attempt, _)| attempt.program).filter(|&it| is_refused(it)).collect()
}
