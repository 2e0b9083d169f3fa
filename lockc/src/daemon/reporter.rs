//! Turns events into log lines, and forgets containers that are gone.

use std::{io, sync::Arc, thread, time::Duration};

use jiff::Timestamp;
use lockc_common::{Event, Operation};
use log::Level;
use nix::time::{ClockId, clock_gettime};

use super::registry::Registry;
use crate::{
    bpf::{events::Events, maps::Maps},
    event::{self, Names, fields, record::Record, store::Journal},
};

/// Longest wait for events in one go.
const PATIENCE: Duration = Duration::from_mins(1);

/// The thread that drains the ring buffer.
#[derive(Debug)]
pub(super) struct Reporter {
    events: Events,
    maps: Arc<Maps>,
    registry: Arc<Registry>,
    journal: Journal,
}

impl Reporter {
    pub(super) fn new(
        events: Events,
        maps: Arc<Maps>,
        registry: Arc<Registry>,
        journal: Journal,
    ) -> Self {
        Self { events, maps, registry, journal }
    }

    /// Starts the thread; it ends with the process.
    pub(super) fn start(self) -> io::Result<()> {
        let Self { mut events, maps, registry, journal } = self;
        thread::Builder::new().name("events".into()).spawn(move || {
            loop {
                events.drain(PATIENCE, |event| report(event, &maps, &registry, &journal));
            }
        })?;
        Ok(())
    }
}

fn report(event: &Event, maps: &Maps, registry: &Registry, journal: &Journal) {
    if event.container & lockc_common::SELF_TEST != 0 {
        return;
    }
    let is_gone = event.operation == Operation::Gone as u32;
    let names = names(event, maps, registry);
    let level = if is_gone { Level::Debug } else { Level::Warn };
    let line = event::line(event, &names);
    let mut record = Record::of_event(event, names.container, names.policy, when(event.time));
    if let Some(origin) = registry.origin(event.container) {
        origin.describe(&mut record);
    }
    journal.keep(&mut record);
    fields::say(level, &line, &record);
    if is_gone {
        registry.forget(event.container);
        maps.forget(event.container);
    }
}

/// The time of day that was `time` ns after the start of the machine.
fn when(time: u64) -> Timestamp {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    let ago = now.saturating_sub(Duration::from_nanos(time));
    Timestamp::now().checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn names(event: &Event, maps: &Maps, registry: &Registry) -> Names {
    let container = registry.shown_id(event.container);
    let policy = maps.policy_name(event.policy).unwrap_or_else(|| event.policy.to_string());
    Names { container, policy }
}
