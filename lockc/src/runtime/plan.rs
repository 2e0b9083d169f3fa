//! What a command line means for the gate.
//!
//! Two steps, because a bundle is read in between: [`plan`] says what must be
//! found out, [`New::admit`], [`New::failed`] and [`failed`] say what to do. The gate carries out
//! the [`Action`] and answers the kernel.

use std::{
    borrow::Cow,
    collections::HashMap,
    error::Error,
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
        Decision, Policy, Subject,
        admission::{self, Finding, Handling},
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
    /// Says what to do with the container, whose bundle says `facts`, which is `identity`, and which
    /// the runtime named `runtime` is to make.
    pub fn admit(
        self,
        facts: &Facts,
        identity: Identity,
        runtime: &str,
        config: &Config,
    ) -> Action {
        let Self { key, restore, .. } = self;
        let subject = Subject { owner: key.owner, runtime, identity: &identity };
        let decision = decide(subject, config);
        if let Some(why) = decision.refused {
            return Action::Deny { why };
        }
        // A policy that is not there allows nothing.
        let Some(policy) = config.policy(&decision.policy) else {
            return Action::Deny { why: format!("there is no policy `{}`", decision.policy) };
        };
        if restore && !policy.allows_restore() {
            return Action::Deny {
                why: format!(
                    "policy `{}` does not allow restoring containers from a checkpoint ({})",
                    decision.policy, decision.why
                ),
            };
        }
        let findings = admission::evaluate(
            &without_claims(facts, &identity),
            &policy.admission(decision.mode),
        );
        if findings.iter().any(|finding| finding.handling == Handling::Enforce) {
            return Action::Deny { why: refusal(&key, &decision, policy, &findings) };
        }
        let mut flags = 0;
        if restore {
            flags |= RegistrationFlags::CRIU;
        }
        if !facts.hooks.create_container.is_empty() {
            flags |= RegistrationFlags::HOOKS;
        }
        let (identity, decision) = (Box::new(identity), Box::new(decision));
        Action::Create { key, identity, decision, findings, flags }
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

/// Which controls refuse a container, what they found, and how to allow it.
fn refusal(
    key: &ContainerKey,
    decision: &Decision,
    policy: &Policy,
    findings: &[Finding],
) -> String {
    let refusals: Vec<String> = findings
        .iter()
        .filter(|finding| finding.handling == Handling::Enforce)
        .map(|Finding { control, found, remedy, .. }| {
            format!("{}: {found} (to allow it: {remedy})", control.name())
        })
        .collect();
    format!(
        "container={} is not admitted by policy {} ({}): {}",
        key.id,
        policy.name,
        decision.why,
        refusals.join("; ").replace("[policy.NAME", &format!("[policy.{}", policy.name))
    )
}

/// Says what to do with a runtime about which something could not be found out.
pub fn failed(error: &dyn Error, config: &Config) -> Action {
    let mut why = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        why.push_str(": ");
        why.push_str(&error.to_string());
        source = error.source();
    }
    if config.starts_unseen() {
        Action::Unattributed { why: Some(why) }
    } else {
        Action::Deny { why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::OnError,
        policy::{LABEL, Level, Mode},
        runtime::{
            bundle::Hook,
            cmdline::{CmdlineError, Dialect, parse},
            engine::{self, BundlePlace, Keeper, Records},
        },
    };

    const ROOT: Uid = Uid::from_raw(0);
    const USER: Uid = Uid::from_raw(1000);

    fn planned(line: &str) -> Plan {
        let words: Vec<Vec<u8>> = line.split(' ').map(Into::into).collect();
        plan(parse(Dialect::Runc, &words, false).unwrap(), ROOT)
    }

    fn key(owner: Uid, root: Option<&str>, id: &str) -> ContainerKey {
        ContainerKey::new(owner, root.map(Path::new), ContainerId::new(id).unwrap())
    }

    #[test]
    fn commands() {
        for (line, restore) in
            [("runc create c", false), ("runc run c", false), ("runc restore c", true)]
        {
            let Plan::New(new) = planned(line) else { panic!("{line}") };
            assert_eq!((new.key, new.restore), (key(ROOT, None, "c"), restore));
        }
        let join = |flags| Plan::Act(Action::Join { key: key(ROOT, Some("/r"), "c"), flags });
        assert_eq!(planned("runc --root //r/ exec c sh"), join(0));
        assert_eq!(planned("runc --root /r checkpoint c"), join(RegistrationFlags::CRIU));
        for line in ["runc start c", "runc delete c", "runc list", "runc --version", "runc"] {
            assert_eq!(planned(line), Plan::Act(Action::Unattributed { why: None }), "{line}");
        }
        assert_eq!(planned("runc init"), Plan::Act(Action::Keep));
    }

    /// A container of no engine.
    fn nobody(facts: &Facts, new: &New) -> Identity {
        let place = BundlePlace { path: "/bundle".into(), keeper: Keeper::Anyone };
        engine::identity(facts, &place, &new.target.id, &Records::default())
    }

    #[test]
    fn restoring_needs_a_policy_that_allows_it() {
        let admit = |config: &Config| {
            let Plan::New(new) = planned("runc restore c") else { panic!() };
            let facts = Facts::default();
            let identity = nobody(&facts, &new);
            new.admit(&facts, identity, "runc", config)
        };
        let mut config = Config::default();
        assert_eq!(
            admit(&config),
            Action::Deny {
                why: "policy `baseline` does not allow restoring containers from a checkpoint (no \
                  rule matches)"
                    .into()
            }
        );
        let Plan::New(new) = planned("runc restore c") else { panic!() };
        assert!(matches!(new.failed(&CmdlineError::Empty, &config), Action::Deny { .. }));
        config.default.policy = Level::Privileged.name().into();
        let Action::Create { decision, flags, .. } = admit(&config) else { panic!() };
        assert_eq!((decision.policy.as_str(), flags), ("privileged", RegistrationFlags::CRIU));
    }

    #[test]
    fn hooks_inside_the_container_are_flagged() {
        let mut facts = Facts::default();
        facts.hooks.start_container.push(Hook::default());
        let admit = |facts: &Facts| {
            let Plan::New(new) = planned("runc create c") else { panic!() };
            let identity = nobody(facts, &new);
            let Action::Create { decision, flags, .. } =
                new.admit(facts, identity, "runc", &Config::default())
            else {
                panic!()
            };
            assert_eq!((decision.policy.as_str(), decision.mode), ("baseline", Mode::Enforce));
            flags
        };
        assert_eq!(admit(&facts), 0);
        facts.hooks.create_container.push(Hook::default());
        assert_eq!(admit(&facts), RegistrationFlags::HOOKS);
    }

    #[test]
    fn a_policy_that_cannot_be_had_is_no_reason_to_start_without() {
        let facts = Facts {
            annotations: [(LABEL.to_owned(), "offline".to_owned())].into(),
            ..Facts::default()
        };
        let Plan::New(new) = planned("runc create c") else { panic!() };
        let identity = nobody(&facts, &new);
        assert_eq!(
            new.admit(&facts, identity, "runc", &Config::default()),
            Action::Deny {
                why:
                    "its annotation org.lockc.policy asks for policy `offline`: `network.mode` is \
                      not enforced by this version"
                        .into()
            }
        );
    }

    #[test]
    fn errors_go_by_the_configuration() {
        let mut config = Config::default();
        let why = "the argument list is empty".to_owned();
        let action = failed(&CmdlineError::Empty, &config);
        assert_eq!(action, Action::Unattributed { why: Some(why.clone()) });
        let Plan::New(new) = planned("runc create c") else { panic!() };
        assert_eq!(new.failed(&CmdlineError::Empty, &config), action);
        config.daemon.on_error = OnError::Deny;
        assert_eq!(failed(&CmdlineError::Empty, &config), Action::Deny { why });
    }

    #[test]
    fn what_cannot_be_understood_is_no_way_around_admission() {
        let mut config = Config::default();
        config.default.policy = Level::Restricted.name().into();
        let action = failed(&CmdlineError::Empty, &config);
        assert_eq!(action, Action::Deny { why: "the argument list is empty".into() });
        // Where findings are only reported, there is nothing to get around.
        config.default.mode = Mode::Audit;
        assert!(matches!(failed(&CmdlineError::Empty, &config), Action::Unattributed { .. }));
    }

    #[test]
    fn records_are_found_by_key_then_by_id() {
        let records: HashMap<_, _> = [
            (key(ROOT, Some("/run/a"), "x"), 1),
            (key(ROOT, Some("/run/b"), "x"), 2),
            (key(ROOT, Some("/run/a"), "y"), 3),
            (key(USER, None, "x"), 4),
            (key(USER, None, "z"), 5),
        ]
        .into();
        let find = |owner, root, id| key(owner, root, id).find(&records).copied();
        assert_eq!(find(ROOT, Some("/run/a/"), "x"), Some(1));
        assert_eq!(find(ROOT, None, "x"), None, "there are two");
        assert_eq!(find(ROOT, None, "y"), Some(3));
        assert_eq!(find(ROOT, Some("/run/user/1000/runc"), "z"), Some(5));
        assert_eq!(find(USER, Some("/elsewhere"), "x"), Some(4));
        assert_eq!(find(USER, None, "y"), None, "root's container is not the user's");
        assert_eq!(find(USER, Some("/run/a"), "y"), None);
        assert_eq!(find(ROOT, None, "w"), None);
    }

    #[test]
    fn what_a_policy_does_not_admit_does_not_start() {
        let process = Some(crate::runtime::bundle::Process::default());
        let facts = Facts { process, ..Facts::default() };
        let admit = |config: &Config| {
            let Plan::New(new) = planned("runc create c") else { panic!() };
            let identity = nobody(&facts, &new);
            new.admit(&facts, identity, "runc", config)
        };
        let mut config = Config::default();
        let Action::Create { findings, .. } = admit(&config) else { panic!() };
        assert!(findings.iter().all(|finding| finding.handling == Handling::Audit));
        assert!(!findings.is_empty());
        config.default.policy = Level::Restricted.name().into();
        let Action::Deny { why } = admit(&config) else { panic!() };
        assert!(
            why.starts_with("container=c is not admitted by policy restricted (no rule matches): ")
        );
        assert!(why.contains("run_as_non_root: "), "{why}");
        assert!(why.contains("[policy.restricted.admission]"), "{why}");
        config.default.mode = Mode::Audit;
        assert!(matches!(admit(&config), Action::Create { .. }));
    }

    #[test]
    fn annotations_of_kubelets_runtime_count_from_it_alone() {
        let mut facts = Facts::default();
        facts.annotations.insert("io.kubernetes.cri.container-type".into(), "sandbox".into());
        facts.annotations.insert("other".into(), "kept".into());
        let Plan::New(new) = planned("runc create c") else { panic!() };
        let mut identity = nobody(&facts, &new);
        assert_eq!(without_claims(&facts, &identity).annotations.len(), 1);
        identity.engine.value = Engine::Cri;
        assert_eq!(without_claims(&facts, &identity).annotations.len(), 1);
        identity.engine.trusted = true;
        assert_eq!(without_claims(&facts, &identity).annotations.len(), 2);
    }
}
