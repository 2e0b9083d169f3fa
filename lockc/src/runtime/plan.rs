//! What a command line means for the gate.
//!
//! Two steps, because a bundle is read in between: [`plan`] says what must be
//! found out, [`New::admit`], [`New::failed`] and [`failed`] say what to do. The gate carries out
//! the [`Action`] and answers the kernel.

use std::{
    borrow::Cow,
    collections::HashMap,
    error::Error,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use lockc_common::RegistrationFlags;
use nix::unistd::Uid;

use super::{
    bundle::Facts,
    cmdline::{ContainerId, Invocation, Target, Verb},
    engine::{Engine, Identity},
};
use crate::{
    config::Config,
    policy::{
        Decision, Subject,
        admission::{self, Finding},
        decide,
    },
};

/// What names a container on a node. Ids are unique only within the state
/// directory of a runtime, and each user has state directories of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContainerKey {
    /// Effective user id of who executed the runtime.
    pub owner: Uid,
    /// `--root`, without trailing and doubled `/`; `None` is the runtime's default.
    pub root: Option<PathBuf>,
    /// The id.
    pub id: ContainerId,
}

impl ContainerKey {
    fn new(owner: Uid, root: Option<&Path>, id: ContainerId) -> Self {
        Self { owner, root: root.map(|root| root.components().collect()), id }
    }

    /// The record of the container that is meant by this key.
    ///
    /// The state directory may have been spelt otherwise when the container was
    /// made, so that an id that only one container of the owner has is taken too;
    /// root may mean the container of any user. Nobody else's container is ever
    /// found for a user, or it would choose a policy by choosing an id.
    pub fn find<'r, T>(&self, records: &'r HashMap<Self, T>) -> Option<&'r T> {
        if let Some(record) = records.get(self) {
            return Some(record);
        }
        let only = |matches: &dyn Fn(&Self) -> bool| {
            let mut found = records.iter().filter(|(key, _)| key.id == self.id && matches(key));
            found.next().filter(|_| found.next().is_none()).map(|(_, record)| record)
        };
        only(&|key| key.owner == self.owner)
            .or_else(|| self.owner.is_root().then(|| only(&|_| true)).flatten())
    }
}

/// What has to be found out before a runtime may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// A container comes into being: read its bundle, then see [`New::admit`].
    New(New),
    /// Nothing.
    Act(Action),
}

/// A container that comes into being.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct New {
    /// Its key.
    pub key: ContainerKey,
    /// Where its bundle is.
    pub target: Target,
    /// From a checkpoint.
    pub restore: bool,
}

/// What is decided about a new container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Its policy.
    pub decision: Decision,
    /// What its bundle asks for that the policy does not admit. Not looked for if it is refused for
    /// another reason.
    pub findings: Vec<Finding>,
    /// Why it must not start, for people.
    pub refused: Option<String>,
}

/// What the gate does with a runtime that waits in `execve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Register it as the runtime of a new container.
    Create {
        /// The container's key; a record under the same key is replaced.
        key: ContainerKey,
        /// Who the container is.
        identity: Box<Identity>,
        /// The container's policy.
        decision: Box<Decision>,
        /// What its bundle asks for that the policy only reports.
        findings: Vec<Finding>,
        /// [`RegistrationFlags`] bits.
        flags: u32,
    },
    /// Register it under the record that [`ContainerKey::find`] finds, or, if there
    /// is none, under [`lockc_common::UNATTRIBUTED`].
    Join {
        /// The container's key.
        key: ContainerKey,
        /// [`RegistrationFlags`] bits.
        flags: u32,
    },
    /// Register it under [`lockc_common::UNATTRIBUTED`]: its containers, if any,
    /// get the default policy.
    Unattributed {
        /// What went wrong; `None` if this is as it should be.
        why: Option<String>,
    },
    /// Register nothing: the task keeps the label that it inherited. The kernel side
    /// gives the default policy to one that has none.
    Keep,
    /// Refuse the `execve`.
    Deny {
        /// The reason, for people.
        why: String,
    },
}

/// Says what to find out about a command line of a caller with effective user id
/// `owner`.
pub fn plan(invocation: Invocation, owner: Uid) -> Plan {
    let Invocation { root, verb } = invocation;
    let key = |id| ContainerKey::new(owner, root.as_deref(), id);
    let new =
        |target: Target, restore| Plan::New(New { key: key(target.id.clone()), target, restore });
    match verb {
        Verb::Create(target) | Verb::Run(target) => new(target, false),
        Verb::Restore(target) => new(target, true),
        Verb::Exec(id) => Plan::Act(Action::Join { key: key(id), flags: 0 }),
        Verb::Checkpoint(id) => {
            Plan::Act(Action::Join { key: key(id), flags: RegistrationFlags::CRIU })
        }
        Verb::Start(_) | Verb::Delete(_) | Verb::Other => {
            Plan::Act(Action::Unattributed { why: None })
        }
        Verb::Init => Plan::Act(Action::Keep),
    }
}

impl New {
    /// Decides about the container, whose bundle says `facts`, which is `identity`, and which the
    /// runtime named `runtime` is to make.
    pub fn judge(
        &self,
        facts: &Facts,
        identity: &Identity,
        runtime: &str,
        config: &Config,
    ) -> Judgement {
        let decision = decide(Subject { owner: self.key.owner, runtime, identity }, config);
        let mut findings = Vec::new();
        let refused = match (&decision.refused, config.policy(&decision.policy)) {
            (Some(why), _) => Some(why.clone()),
            // A policy that is not there allows nothing.
            (None, None) => Some(format!("there is no policy `{}`", decision.policy)),
            (None, Some(policy)) if self.restore && !policy.allows_restore() => Some(format!(
                "policy `{}` does not allow restoring containers from a checkpoint ({})",
                decision.policy, decision.why
            )),
            (None, Some(policy)) => {
                findings = admission::evaluate(
                    &without_claims(facts, identity),
                    &policy.admission(decision.mode),
                );
                let is_refused = findings.iter().any(Finding::refuses);
                is_refused.then(|| self.refusal(&decision, &findings))
            }
        };
        Judgement { decision, findings, refused }
    }

    /// Says what to do with the container, about which [`Self::judge`] decides.
    pub fn admit(
        self,
        facts: &Facts,
        identity: Identity,
        runtime: &str,
        config: &Config,
    ) -> Action {
        let Judgement { decision, findings, refused } =
            self.judge(facts, &identity, runtime, config);
        if let Some(why) = refused {
            return Action::Deny { why };
        }
        let mut flags = 0;
        if self.restore {
            flags |= RegistrationFlags::CRIU;
        }
        flags |= hooks(facts);
        let (identity, decision) = (Box::new(identity), Box::new(decision));
        Action::Create { key: self.key, identity, decision, findings, flags }
    }

    /// Says what to do with the container if its bundle could not be read.
    pub fn failed(&self, error: &dyn Error, config: &Config) -> Action {
        match failed(error, config) {
            // Whether it may be restored cannot be known, and the default policy would come
            // into force for none of its processes.
            Action::Unattributed { why: Some(why) } if self.restore => Action::Deny { why },
            action => action,
        }
    }

    /// Which controls refuse the container, what they found, and how to allow it.
    fn refusal(&self, decision: &Decision, findings: &[Finding]) -> String {
        let Decision { policy, why, .. } = decision;
        let refusals: Vec<String> = findings
            .iter()
            .filter(|finding| finding.refuses())
            .map(|finding| {
                let (control, remedy) = (finding.control.name(), finding.remedy_in(policy));
                format!("{control}: {} (to allow it: {remedy})", finding.found)
            })
            .collect();
        format!(
            "container={} is not admitted by policy {policy} ({why}): {}{}",
            self.key.id,
            refusals.join("; "),
            self.pointer()
        )
    }

    /// Where to read more about the container. Whoever starts it chooses the path, and somebody else
    /// puts it into a shell: only paths that are plain words are shown.
    fn pointer(&self) -> String {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@,=%".contains(&byte);
        match self.target.bundle.as_deref().filter(|bundle| bundle.is_absolute()) {
            Some(bundle) if bundle.as_os_str().as_bytes().iter().copied().all(is_plain) => {
                format!("; see `lockc explain {}`", bundle.display())
            }
            _ => String::new(),
        }
    }
}

/// [`RegistrationFlags`] that follow from what a bundle hooks.
pub fn hooks(facts: &Facts) -> u32 {
    if facts.hooks.create_container.is_empty() { 0 } else { RegistrationFlags::HOOKS }
}

/// What is left of a bundle for admission, which believes what kubelet's runtime notes: nothing of that
/// kind, unless kubelet's runtime made it.
fn without_claims<'f>(facts: &'f Facts, identity: &Identity) -> Cow<'f, Facts> {
    let by_kubelet =
        identity.engine.trusted && matches!(identity.engine.value, Engine::Cri | Engine::CriO);
    let claims = |key: &String| key.starts_with("io.kubernetes.cri");
    if by_kubelet || !facts.annotations.keys().any(claims) {
        return Cow::Borrowed(facts);
    }
    let mut facts = facts.clone();
    facts.annotations.retain(|key, _| !claims(key));
    Cow::Owned(facts)
}

/// Says what to do with a runtime about which something could not be found out.
pub fn failed(error: &dyn Error, config: &Config) -> Action {
    let why = chain(error);
    if config.starts_unseen() {
        Action::Unattributed { why: Some(why) }
    } else {
        Action::Deny { why }
    }
}

/// An error with what it comes from.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
