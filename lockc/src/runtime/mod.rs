//! What an OCI runtime was asked to do: its command line, read from the frozen
//! task, and the bundle it points to.
//!
//! [`examine`] is all of it in one call. Everything here may be called by several
//! threads at once, keeps no state, and is bounded in time and memory, except
//! where a file system in user space does not answer.

pub mod argv;
pub mod bundle;
pub mod caller;
pub mod cmdline;
pub mod engine;
pub mod plan;
mod proc;
mod regular;
pub mod state;

use std::os::fd::OwnedFd;

use nix::unistd::Pid;

use self::{
    bundle::Bundle,
    caller::{Caller, CallerError},
    cmdline::{Dialect, Invocation, Verb},
    plan::{Action, Plan},
};
use crate::config::Config;

/// What the gate has to know about a runtime that waits in `execve`.
#[derive(Debug)]
pub struct Examined {
    /// What to do.
    pub action: Action,
    /// The command; `None` if it could not be understood.
    pub verb: Option<Verb>,
    /// Who executes the runtime; `None` with [`Action::Keep`], which does not depend on it. After
    /// an error there is nothing to register: unless it is refused, the kernel side gives the
    /// default policy.
    pub caller: Result<Option<Caller>, CallerError>,
    /// The root file system of a new container, opened with `O_PATH`.
    pub rootfs: Option<OwnedFd>,
}

/// Finds out what thread `tid`, which must be frozen in the `execve` of the runtime that the
/// configuration names `runtime`, is about to do.
pub fn examine(tid: Pid, runtime: &str, config: &Config) -> Examined {
    let dialect = Dialect::of(runtime);
    let invocation =
        argv::read(tid).map_err(|error| plan::failed(&error, config)).and_then(|argv| {
            cmdline::parse(dialect, &argv.words, argv.cut)
                .map_err(|error| plan::failed(&error, config))
        });
    // Two of three executions of a runtime per container are of this kind.
    if let Ok(Invocation { verb: Verb::Init, .. }) = invocation {
        let (action, verb) = (Action::Keep, Some(Verb::Init));
        return Examined { action, verb, caller: Ok(None), rootfs: None };
    }
    let caller = match Caller::read(tid) {
        Ok(caller) => caller,
        Err(error) => {
            let action = plan::failed(&error, config);
            return Examined { action, verb: None, caller: Err(error), rootfs: None };
        }
    };
    let (action, verb, rootfs) = match invocation {
        Err(action) => (action, None, None),
        Ok(invocation) => {
            let verb = Some(invocation.verb.clone());
            match plan::plan(invocation, caller.ids.euid) {
                Plan::Act(action) => (action, verb, None),
                Plan::New(new) => match Bundle::read(&caller, &new.target) {
                    Ok(bundle) => {
                        let identity = engine::identify(&bundle, &new.target, &caller);
                        let action = new.admit(&bundle.facts, identity, runtime, config);
                        (action, verb, bundle.rootfs.ok())
                    }
                    Err(error) => (new.failed(&error, config), verb, None),
                },
            }
        }
    };
    Examined { action, verb, caller: Ok(Some(caller)), rootfs }
}
