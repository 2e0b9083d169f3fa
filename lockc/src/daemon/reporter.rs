//! Turns events into log lines, and forgets containers that are gone.

use std::{io, sync::Arc, thread, time::Duration};

use lockc_common::{Event, Operation, UNATTRIBUTED};

use super::registry::Registry;
use crate::{
    bpf::{events::Events, maps::Maps},
    event::{self, Names},
};

/// Longest wait for events in one go.
const PATIENCE: Duration = Duration::from_mins(1);

/// The thread that drains the ring buffer.
#[derive(Debug)]
pub(super) struct Reporter {
    events: Events,
    maps: Arc<Maps>,
    registry: Arc<Registry>,
}

impl Reporter {
    pub(super) fn new(events: Events, maps: Arc<Maps>, registry: Arc<Registry>) -> Self {
        Self { events, maps, registry }
    }

    /// Starts the thread; it ends with the process.
    pub(super) fn start(self) -> io::Result<()> {
        let Self { mut events, maps, registry } = self;
        thread::Builder::new().name("events".into()).spawn(move || {
            loop {
                events.drain(PATIENCE, |event| report(event, &maps, &registry));
            }
        })?;
        Ok(())
    }
}

fn report(event: &Event, maps: &Maps, registry: &Registry) {
    if event.container & lockc_common::SELF_TEST != 0 {
        return;
    }
    if event.operation == Operation::Gone as u32 {
        log::debug!("{}", event::line(event, &names(event, maps, registry)));
        registry.forget(event.container);
        maps.forget(event.container);
        return;
    }
    log::warn!("{}", event::line(event, &names(event, maps, registry)));
}

fn names(event: &Event, maps: &Maps, registry: &Registry) -> Names {
    let container = registry.id(event.container).unwrap_or_else(|| {
        if event.container == UNATTRIBUTED {
            "unattributed".to_owned()
        } else {
            format!("unattributed-{:x}", event.container)
        }
    });
    let policy = maps.policy_name(event.policy).unwrap_or_else(|| event.policy.to_string());
    Names { container, policy }
}
