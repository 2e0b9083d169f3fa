//! Tells the programs the time of day when somebody sets it.

use std::os::fd::{AsFd, BorrowedFd};

use nix::{
    sys::{
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
    time::{ClockId as Clock, clock_gettime},
};

use crate::bpf::{LoadError, maps::Maps};

/// A timer that never expires, and that the kernel cancels when the clock is set (`timerfd_create(2)`).
#[derive(Debug)]
pub(super) struct ClockWatch(TimerFd);

impl ClockWatch {
    pub(super) fn new() -> nix::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let watch = Self(TimerFd::new(ClockId::CLOCK_REALTIME, flags)?);
        watch.arm()?;
        Ok(watch)
    }

    fn arm(&self) -> nix::Result<()> {
        let never = Expiration::OneShot(TimeSpec::new(i64::MAX, 0));
        let flags =
            TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        self.0.set(never, flags)
    }

    /// The clock was set: says so to the programs, and watches on.
    pub(super) fn was_set(&self, maps: &Maps) {
        // Before the clock is read: it may be set again at once.
        if let Err(errno) = self.arm() {
            log::error!("cannot watch the clock: {errno}");
        }
        if let Err(error) = tell(maps) {
            log::error!("{error}");
        }
    }
}

impl AsFd for ClockWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Says to the programs what the time of day is.
pub(super) fn tell(maps: &Maps) -> Result<(), LoadError> {
    let read = |clock| clock_gettime(clock).map(nanoseconds);
    let difference = read(Clock::CLOCK_REALTIME)
        .and_then(|time| Ok(time.saturating_sub(read(Clock::CLOCK_BOOTTIME)?)))
        .map_err(|errno| LoadError::Map { name: "CLOCK", reason: errno.to_string() })?;
    maps.set_clock(difference)
}

/// Of a time within 292 years of 1970.
fn nanoseconds(time: TimeSpec) -> i64 {
    time.tv_sec().saturating_mul(1_000_000_000).saturating_add(time.tv_nsec())
}
