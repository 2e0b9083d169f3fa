//! What is in force: a configuration, and the ids of its policies in the kernel.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use lockc_common::PathVerdict;

use super::mounts::{self, HostRules};
use crate::{
    bpf::{
        Kernel, LoadError,
        maps::{CompiledPolicy, Maps},
    },
    config::Config,
    policy::{KernelRules, Mode, PathRule, Policy},
};

/// A configuration whose policies are installed.
#[derive(Debug)]
pub(super) struct Force {
    pub(super) config: Config,
    /// Where the host paths of policies are.
    pub(super) host: HostRules,
    /// Ids of the policies, by name and mode.
    ids: HashMap<(String, Mode), u32>,
    default: u32,
}

impl Force {
    /// Installs all policies that a decision can name, and the default for whoever is not registered.
    pub(super) fn install(
        config: Config,
        maps: &Maps,
        kernel: &mut Kernel,
    ) -> Result<Self, LoadError> {
        let host = mounts::resolve(&config)?;
        Self::install_at(config, host, maps, kernel)
    }

    /// As [`Self::install`], with host paths that are there.
    pub(super) fn install_at(
        config: Config,
        host: HostRules,
        maps: &Maps,
        kernel: &mut Kernel,
    ) -> Result<Self, LoadError> {
        let (keys, compiled): (Vec<_>, Vec<_>) = in_use(&config)
            .map(|(policy, mode)| ((policy.name.clone(), mode), compile(policy, mode, &host)))
            .unzip();
        // Before anything changes: what is in force must stay whole if this one cannot be had.
        let wanted = (config.default.policy.clone(), config.default_mode());
        let at = keys.iter().position(|key| *key == wanted).ok_or_else(|| LoadError::Map {
            name: "POLICIES",
            reason: format!("the default policy `{}` cannot be enforced", config.default.policy),
        })?;
        let flags = compiled.iter().fold(maps.flags_in_use(), |flags, policy| flags | policy.flags);
        kernel.attach_for(flags)?;
        let ids = maps.install(&compiled)?;
        let default = ids[at];
        maps.set_default(default)?;
        Ok(Self { config, host, ids: keys.into_iter().zip(ids).collect(), default })
    }

    /// Id of a policy.
    pub(super) fn id(&self, policy: &str, mode: Mode) -> Option<u32> {
        self.ids.get(&(policy.to_owned(), mode)).copied()
    }

    /// Id of the default policy.
    pub(super) fn default_id(&self) -> u32 {
        self.default
    }

    /// Name and mode of the policy with an id.
    pub(super) fn named(&self, id: u32) -> Option<(&str, Mode)> {
        self.ids.iter().find(|(_, it)| **it == id).map(|((name, mode), _)| (name.as_str(), *mode))
    }

    /// All ids.
    pub(super) fn ids(&self) -> Vec<u32> {
        self.ids.values().copied().collect()
    }
}

/// The [`Force`] of the moment.
#[derive(Debug)]
pub(super) struct InForce(RwLock<Arc<Force>>);

impl InForce {
    pub(super) fn new(force: Force) -> Self {
        Self(RwLock::new(Arc::new(force)))
    }

    /// For one decision, which is made and carried out by it as a whole.
    pub(super) fn get(&self) -> Arc<Force> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another in its place, and gives the old one.
    pub(super) fn replace(&self, force: Force) -> Arc<Force> {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut current, Arc::new(force))
    }
}

/// The policies that a decision can name, with each mode that it can have: containers may ask for
/// every policy, in the mode that it has by itself.
fn in_use(config: &Config) -> impl Iterator<Item = (&Policy, Mode)> {
    config.policies.values().flat_map(|policy| {
        let rules = config.rules.iter().filter(|rule| rule.policy == policy.name);
        let modes: HashSet<Mode> = rules
            .map(|rule| rule.mode)
            .chain([None])
            .map(|mode| config.mode(&policy.name, mode))
            .collect();
        modes.into_iter().map(move |mode| (policy, mode))
    })
}

fn compile(policy: &Policy, mode: Mode, host: &HostRules) -> CompiledPolicy {
    let KernelRules { flags, paths, exec, network } = policy.kernel_rules(mode);
    let bytes = |rules: Vec<(PathRule, PathVerdict)>| {
        rules.iter().map(|(rule, verdict)| (rule.as_bytes().to_vec(), *verdict)).collect()
    };
    CompiledPolicy {
        name: policy.name.clone(),
        flags: flags.0,
        paths: bytes(paths),
        exec: bytes(exec),
        host: host.get(&policy.name).cloned().unwrap_or_default(),
        network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_use(toml: &str) -> Vec<(String, Mode)> {
        let config = Config::understand(toml, "lockc.toml".as_ref());
        let mut policies: Vec<_> =
            super::in_use(&config).map(|(policy, mode)| (policy.name.clone(), mode)).collect();
        policies.sort_by_key(|(name, mode)| (name.clone(), *mode == Mode::Audit));
        policies
    }

    #[test]
    fn every_policy_that_can_be_decided_is_installed() {
        let named = |list: &[(&str, Mode)]| -> Vec<_> {
            list.iter().map(|(name, mode)| ((*name).to_owned(), *mode)).collect()
        };
        let levels = [
            ("baseline", Mode::Enforce),
            ("offline", Mode::Enforce),
            ("privileged", Mode::Enforce),
            ("restricted", Mode::Enforce),
        ];
        assert_eq!(in_use(""), named(&levels));
        let own = in_use(
            "[default]\nmode = \"audit\"\n\
             [policy.a]\nextends = \"restricted\"\nmode = \"enforce\"\n\
             [[rule]]\nname = \"r\"\npolicy = \"a\"\nmode = \"audit\"\nmatch.owner = \"0\"\n",
        );
        assert_eq!(
            own,
            named(&[
                ("a", Mode::Enforce),
                ("a", Mode::Audit),
                ("baseline", Mode::Audit),
                ("offline", Mode::Audit),
                ("privileged", Mode::Audit),
                ("restricted", Mode::Audit),
            ])
        );
    }

    #[test]
    fn compiled_policies_hold_all_rules() {
        let config = Config::understand(
            "[policy.a]\nextends = \"baseline\"\npaths.deny = [\"/x/**\"]\n\
             paths.allow = [\"/x/y\"]\nhost_paths.deny = [\"/srv\"]\n",
            "lockc.toml".as_ref(),
        );
        let rules = vec![(b"/\x01\0\0\0/srv/".to_vec(), PathVerdict::Deny)];
        let host = HostRules::from([("a".to_owned(), rules.clone())]);
        let compiled = compile(&config.policies["a"], Mode::Audit, &host);
        assert_eq!((compiled.name.as_str(), compiled.paths.len()), ("a", 4));
        assert!(compiled.paths.contains(&(b"/x/y/".to_vec(), PathVerdict::Allow)));
        for flag in [lockc_common::PolicyFlags::AUDIT, lockc_common::PolicyFlags::HOST_PATHS] {
            assert_ne!(compiled.flags & flag, 0);
        }
        assert_eq!(compiled.host, rules);
    }
}
