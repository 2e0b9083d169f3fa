//! What is said of containers that run already, when they get a policy: a line of the log, and an event.

use log::Level;

use super::registry::{Origin, Registry};
use crate::{
    event::{
        fields,
        record::{self, Record},
        store::Journal,
    },
    policy::Decision,
};

/// It ran before this daemon.
pub(super) const ADOPTED: &str = "adopted";
/// The configuration gives it another policy.
pub(super) const POLICY: &str = "policy";

/// A container that runs already, and has a policy from now on.
#[derive(Debug)]
pub(super) struct Placed<'a> {
    pub(super) handle: u64,
    /// Its first process, or its runtime; 0 if that is not known.
    pub(super) pid: u32,
    pub(super) decision: &'a Decision,
    pub(super) origin: Option<&'a Origin>,
}

impl Placed<'_> {
    /// Says it; `operation` is what brought the policy about.
    pub(super) fn tell(
        &self,
        operation: &str,
        level: Level,
        message: &str,
        registry: &Registry,
        journal: &Journal,
    ) {
        let mut event = self.event(operation, registry);
        journal.keep(&mut event);
        fields::say(level, message, &event);
    }

    fn event(&self, operation: &str, registry: &Registry) -> Record {
        let Self { handle, pid, decision, origin } = self;
        let mut event = Record::now("noticed", operation);
        event.container = registry.shown_id(*handle);
        event.policy.clone_from(&decision.policy);
        event.mode = Some(decision.mode.name().to_owned());
        event.why = Some(record::cut(&decision.why));
        (event.pid, event.tid) = (*pid, *pid);
        if let Some(origin) = origin {
            origin.describe(&mut event);
        }
        event
    }
}
