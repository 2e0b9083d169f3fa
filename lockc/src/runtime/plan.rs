//! What a command line means for the gate.
//!
//! Two steps, because a bundle is read in between: [`plan`] says what must be
//! found out, [`New::admit`], [`New::failed`] and [`failed`] say what to do. The gate carries out
//! the [`Action`] and answers the kernel.

use std::{
    collections::HashMap,
    error::Error,
    path::{Path, PathBuf},
};

use lockc_common::RegistrationFlags;
use nix::unistd::Uid;

use super::{
    bundle::Facts,
    cmdline::{ContainerId, Invocation, Target, Verb},
    engine::{Engine, Fact, Identity},
};
use crate::{
    config::{Config, OnError},
    policy::{Decision, Policy, Subject, decide},
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
        /// The container's policy.
        decision: Box<Decision>,
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
    /// Says what to do with the container, whose bundle says `facts`, and which the runtime named
    /// `runtime` is to make.
    pub fn admit(self, facts: &Facts, runtime: &str, config: &Config) -> Action {
        let Self { key, restore, .. } = self;
        let identity = annotations_only(facts, key.owner);
        let decision = decide(Subject { owner: key.owner, runtime, identity: &identity }, config);
        if let Some(why) = decision.refused {
            return Action::Deny { why };
        }
        // A policy that is not there allows nothing.
        let allows_restore = config.policy(&decision.policy).is_some_and(Policy::allows_restore);
        if restore && !allows_restore {
            return Action::Deny {
                why: format!(
                    "policy `{}` does not allow restoring containers from a checkpoint ({})",
                    decision.policy, decision.why
                ),
            };
        }
        let mut flags = 0;
        if restore {
            flags |= RegistrationFlags::CRIU;
        }
        if !facts.hooks.create_container.is_empty() {
            flags |= RegistrationFlags::HOOKS;
        }
        Action::Create { key, decision: Box::new(decision), flags }
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

/// The identity as far as the bundle itself tells it. Rules about anything else are refused as not
/// enforced (`config::supported::UNKNOWN_FACTS`).
fn annotations_only(facts: &Facts, owner: Uid) -> Identity {
    let source = "config.json";
    let fact = |value: &String| Fact {
        value: value.clone(),
        source: source.to_owned(),
        trusted: owner.is_root(),
    };
    Identity {
        engine: Fact { value: Engine::None, source: source.to_owned(), trusted: false },
        namespace: None,
        pod: None,
        container: None,
        image: None,
        labels: std::collections::BTreeMap::new(),
        annotations: facts
            .annotations
            .iter()
            .map(|(key, value)| (key.clone(), fact(value)))
            .collect(),
    }
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
    match config.daemon.on_error {
        OnError::Default => Action::Unattributed { why: Some(why) },
        OnError::Deny => Action::Deny { why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        policy::{LABEL, Level, Mode},
        runtime::{
            bundle::Hook,
            cmdline::{CmdlineError, Dialect, parse},
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

    #[test]
    fn restoring_needs_a_policy_that_allows_it() {
        let admit = |config: &Config| {
            let Plan::New(new) = planned("runc restore c") else { panic!() };
            new.admit(&Facts::default(), "runc", config)
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
            let Action::Create { decision, flags, .. } =
                new.admit(facts, "runc", &Config::default())
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
        assert_eq!(
            new.admit(&facts, "runc", &Config::default()),
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
}
