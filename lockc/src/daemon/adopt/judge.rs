//! Which containers run, and what is decided about each.

use std::{path::Path, sync::Arc};

use super::super::{registry::Origin, tell::Placed};
use crate::{
    adopt::{Running, Snapshot, places, running},
    config::Config,
    policy::Decision,
    runtime::{
        bundle::Bundle,
        caller::{Caller, Ids},
        cmdline::Target,
        engine,
        plan::{self, ContainerKey, New},
        state::{self, Listing},
    },
};

/// Whose containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Root,
    Users,
}

/// A container that runs, with what is decided about it.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct Judged {
    pub(super) running: Running,
    pub(super) decision: Decision,
    /// `None` if its bundle cannot be read.
    pub(super) origin: Option<Arc<Origin>>,
    /// [`lockc_common::LabelFlags`] of its runtime.
    pub(super) flags: u32,
    /// What admission would have said, for people.
    pub(super) refused: Option<String>,
}

impl Judged {
    /// It has the record `handle`.
    pub(super) fn placed(&self, handle: u64) -> Placed<'_> {
        let Self { running, decision, origin, .. } = self;
        Placed { handle, pid: running.first.pid, decision, origin: origin.as_deref() }
    }

    pub(super) fn described(&self) -> String {
        let Self { running, decision, .. } = self;
        format!(
            "container={} policy={} mode={} pid={}: {}",
            running.kept.id, decision.policy, decision.mode, running.first.pid, decision.why
        )
    }
}

pub(super) fn find(whose: Whose, snapshot: &Snapshot, config: &Config) -> Vec<Running> {
    let run = Path::new(state::RUN);
    let mut listing = match whose {
        Whose::Root => state::list(run, &state::SYSTEM),
        Whose::Users => state::list(run, &state::OF_USERS),
    };
    for place in places(&config.runtimes, snapshot) {
        let Listing { containers, troubles } = Listing::of_root(&place);
        listing.containers.extend(containers);
        listing.troubles.extend(troubles);
    }
    listing.containers.retain(|kept| kept.owner.is_root() == (whose == Whose::Root));
    let (found, troubles) = running(listing, snapshot);
    for trouble in troubles {
        log::warn!("a container that runs already may be missed: {trouble}");
    }
    found
}

pub(super) fn judge(running: Running, config: &Config) -> Judged {
    let key = running.key();
    let target = Target {
        id: running.kept.id.clone(),
        bundle: Some(running.state.bundle.clone()),
        config: None,
    };
    let runtime = running.state.runtime(config).to_owned();
    let read = || -> Result<_, String> {
        let caller = Caller::standing_in(Ids::of_user(running.kept.owner))
            .map_err(|error| plan::chain(&error))?;
        let bundle = Bundle::read(&caller, &target).map_err(|error| plan::chain(&error))?;
        let identity = engine::identify(&bundle, &target, &caller);
        Ok((bundle, identity))
    };
    match read() {
        Ok((bundle, identity)) => {
            let ContainerKey { owner, .. } = key;
            let new = New { key, target: target.clone(), restore: false };
            let judgement = new.judge(&bundle.facts, &identity, &runtime, config);
            let mut decision = judgement.decision;
            if decision.refused.is_some() {
                decision = Decision::fallback(config, "it asks for a policy that does not exist");
            }
            let origin = Some(Arc::new(Origin { owner, runtime, identity }));
            Judged {
                running,
                decision,
                origin,
                flags: plan::hooks(&bundle.facts),
                refused: judgement.refused,
            }
        }
        Err(why) => {
            let decision = Decision::fallback(config, why);
            Judged { running, decision, origin: None, flags: 0, refused: None }
        }
    }
}
