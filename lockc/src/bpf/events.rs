//! Draining the ring buffer.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use lockc_common::Event;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// The ring buffer of events.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// Waits for events, at most `patience`, and hands each to `take`.
    pub fn drain(&mut self, patience: Duration, mut take: impl FnMut(&Event)) {
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        // SAFETY: the descriptor belongs to the map, which `self` keeps open.
        let fd = unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) };
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => log::error!("cannot wait for events: {errno}"),
        }
        while let Some(item) = self.ring.next() {
            // No program of this layout version writes a record that is none.
            if let Some(event) = decode(&item) {
                take(&event);
            }
        }
    }
}

/// The event that a record of the ring buffer is; `None` if it is too short for one.
pub fn decode(record: &[u8]) -> Option<Event> {
    if record.len() < size_of::<Event>() {
        return None;
    }
    // SAFETY: long enough (checked), and an event is valid for any bytes.
    Some(unsafe { record.as_ptr().cast::<Event>().read_unaligned() })
}
