//! Proof that the programs run: attached is not the same as fired.
//!
//! A thread of the daemon becomes a contained task under a policy of its own and
//! tries one thing that is allowed and one that is not. Programs of an earlier
//! daemon ignore this label, so the answer comes from the new ones.

mod fires;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
};

use lockc_common::{PathVerdict, PolicyFlags};
use thiserror::Error;

use super::{
    calls,
    load::{Kernel, LoadError},
    maps::{CompiledPolicy, Maps},
};

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
    /// Something allowed failed.
    #[error("self-test: opening {} should succeed: {source}", path.display())]
    AllowFailed {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Something denied did not fail with EPERM.
    #[error(
        "self-test: {what} should be denied, but {found}: the programs are attached and do not \
         fire; is bpf in the lsm= boot parameter?"
    )]
    DenyFailed {
        /// What was tried.
        what: String,
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
    /// The test's thread did not finish.
    #[error("self-test: its thread failed")]
    Thread,
}

/// Tries one allow and one deny. `directory` is the daemon's own, under `/run`.
pub fn run(kernel: &Kernel, maps: &Maps, directory: &Path) -> Result<(), SelfTestError> {
    let prepare = |path: &Path| {
        let path = path.to_owned();
        move |source| SelfTestError::Prepare { path, source }
    };
    let directory = fs::canonicalize(directory).map_err(prepare(directory))?;
    let allowed = directory.join("self-test-allow");
    let denied = directory.join("self-test-deny");
    for path in [&allowed, &denied] {
        fs::write(path, "").map_err(prepare(path))?;
    }
    let mut rule = denied.as_os_str().as_encoded_bytes().to_vec();
    rule.push(b'/');
    let policy = maps.install(&[CompiledPolicy {
        name: "self-test".into(),
        flags: PolicyFlags::PATHS | PolicyFlags::KERNEL_LOG,
        exec: Vec::new(),
        host: Vec::new(),
        network: Vec::new(),
        paths: vec![(rule, PathVerdict::Deny)],
    }])?;
    let policy = policy.first().copied().unwrap_or(u32::MAX);
    let handle = kernel.self_test;
    thread::scope(|scope| {
        scope
            .spawn(|| {
                calls::enter_self_test(u64::from(policy));
                if maps.container(handle).is_none() {
                    return Err(SelfTestError::NotLabelled);
                }
                attempt(&allowed, &denied)
            })
            .join()
            .unwrap_or(Err(SelfTestError::Thread))
    })?;
    fires::run(kernel, &directory)
}

fn attempt(allowed: &Path, denied: &Path) -> Result<(), SelfTestError> {
    File::open(allowed)
        .map_err(|source| SelfTestError::AllowFailed { path: allowed.to_owned(), source })?;
    match File::open(denied) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EPERM) => Ok(()),
        Err(error) => Err(error.to_string()),
        Ok(_) => Err("it succeeded".to_owned()),
    }
    .map_err(|found| SelfTestError::DenyFailed {
        what: format!("opening {}", denied.display()),
        found,
    })
}
