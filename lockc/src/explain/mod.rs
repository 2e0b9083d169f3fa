//! What would be decided about a container, and why: for `lockc explain`.
//!
//! The bundle is read, its container identified and decided about by the functions that the gate
//! calls. What the gate has from a frozen task, who calls which runtime for which id, comes from what
//! runtimes keep, or is assumed and said to be.

mod find;
mod json;
mod text;

use std::path::PathBuf;

use nix::unistd::Uid;

pub use self::find::{FindError, Request};
use crate::{
    config::Config,
    policy::{Decision, Passed, Subject, passed_over},
    runtime::{
        bundle::{Bundle, BundleError},
        caller::{Caller, CallerError, Ids},
        cmdline::Target,
        engine::{self, Identity},
        plan::{self, Action, ContainerKey, Judgement, New},
    },
};

/// Something that the gate has from the caller of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known<T> {
    /// What it is.
    pub value: T,
    /// How it is known, or that it is assumed, for people.
    pub how: String,
}

/// A container to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its id, and its bundle by an absolute path.
    pub target: Target,
    /// How the id is known.
    pub id_from: String,
    /// Who executes the runtime.
    pub owner: Known<Uid>,
    /// The runtime's name in the configuration.
    pub runtime: Known<String>,
    /// The container's state directory, if it was found by that: it runs, or did.
    pub state: Option<PathBuf>,
    /// What else is to be said of how it was found, for people.
    pub notes: Vec<String>,
}

/// What would be decided now about a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation<'c> {
    case: Case,
    config: &'c Config,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// The bundle is understood.
    Judged { identity: Box<Identity>, passed: Vec<Passed>, judgement: Box<Judgement> },
    /// It is not: the container gets the default policy, or does not start.
    Unseen { why: String, starts: bool, fallback: Decision },
}

/// Why a container cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// Nobody can be stood in for.
    #[error(transparent)]
    Caller(#[from] CallerError),
    /// The bundle is not there.
    #[error(
        "{} is gone, or never was: containerd, and with it Docker and kubelet, removes the bundle of a \
         container that did not start; start it under `mode = \"audit\"` to explain it",
        path.display()
    )]
    Gone {
        /// The file or directory.
        path: PathBuf,
    },
    /// The bundle cannot be read here; the gate might.
    #[error("{0}{remedy}", remedy = if nix::unistd::geteuid().is_root() { "" } else { "; run it as root" })]
    Unreadable(String),
}

impl<'c> Explanation<'c> {
    /// Looks at the container as the gate would, and decides by `config`.
    pub fn of(case: Case, config: &'c Config) -> Result<Self, ExplainError> {
        let Case { target, owner, runtime, .. } = &case;
        let caller = Caller::standing_in(Ids::of_user(owner.value))?;
        let key = ContainerKey { owner: owner.value, root: None, id: target.id.clone() };
        let new = New { key, target: target.clone(), restore: false };
        let outcome = match Bundle::read(&caller, target) {
            Ok(bundle) => {
                let identity = engine::identify(&bundle, target, &caller);
                let judgement = new.judge(&bundle.facts, &identity, &runtime.value, config);
                let subject =
                    Subject { owner: owner.value, runtime: &runtime.value, identity: &identity };
                let passed = passed_over(subject, config, judgement.decision.passed);
                let (identity, judgement) = (Box::new(identity), Box::new(judgement));
                Outcome::Judged { identity, passed, judgement }
            }
            Err(BundleError::Open { path, source: nix::errno::Errno::ENOENT }) => {
                return Err(ExplainError::Gone { path });
            }
            Err(
                error @ (BundleError::Open { .. }
                | BundleError::Read { .. }
                | BundleError::Ids { .. }),
            ) => return Err(ExplainError::Unreadable(plan::chain(&error))),
            Err(error) => {
                let fallback = Decision::fallback(config, "its bundle is not understood");
                match new.failed(&error, config) {
                    Action::Deny { why } => Outcome::Unseen { why, starts: false, fallback },
                    _ => Outcome::Unseen { why: plan::chain(&error), starts: true, fallback },
                }
            }
        };
        Ok(Self { case, config, outcome })
    }

    /// Whether the container would start.
    pub fn starts(&self) -> bool {
        match &self.outcome {
            Outcome::Judged { judgement, .. } => judgement.refused.is_none(),
            Outcome::Unseen { starts, .. } => *starts,
        }
    }

    /// What is decided, whether it starts or not.
    pub fn decision(&self) -> &Decision {
        match &self.outcome {
            Outcome::Judged { judgement, .. } => &judgement.decision,
            Outcome::Unseen { fallback, .. } => fallback,
        }
    }
}

/// Text on one line, as it is but for what a terminal would not show as it is.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '"' | '\'' | '\\' => out.push(char),
            _ => out.extend(char.escape_debug()),
        }
    }
    out
}

/// Name and id of a user.
fn user(uid: Uid) -> (Option<String>, u32) {
    (nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name), uid.as_raw())
}
