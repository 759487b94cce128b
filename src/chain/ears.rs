//! What the loop listens to: signals, descriptors, the next deadline, and the service manager's watchdog.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::clock::{Clock, Moment};
use crate::notify::systemd::Watchdog;
use crate::process::Family;
use crate::process::signal::Signals;

/// Waits for the next thing to happen.
#[derive(Debug)]
pub struct Ears {
    signals: Signals,
    watchdog: Watchdog,
    kept: Vec<i32>,
}

/// What has happened.
#[derive(Debug)]
pub struct Heard {
    /// For each group of descriptors, whether one of it is ready.
    pub ready: Vec<bool>,
    /// Signals to stop that have arrived.
    pub stops: Vec<i32>,
}

impl Ears {
    /// Listens to these.
    pub fn new(signals: Signals, watchdog: Watchdog) -> Self {
        Self { signals, watchdog, kept: Vec::new() }
    }

    /// Keeps signals that came while nobody could act on them, for the next to listen.
    pub fn keep(&mut self, stops: &[i32]) {
        self.kept.extend(stops);
    }

    /// How many signals are kept.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Waits until a descriptor is ready, a signal arrives or the deadline passes; gives the watchdog its signs
    /// meanwhile, and buries adopted children.
    pub fn listen(&mut self, groups: &[Vec<BorrowedFd<'_>>], deadline: Option<Moment>, family: &Family, clock: &dyn Clock) -> Heard {
        let now = clock.now();
        let until = if self.kept.is_empty() { deadline.into_iter().chain(self.watchdog.wake_at()).min() } else { Some(now) };
        // Milliseconds of a poll would end up to one too early, and spin; nanoseconds do not.
        let timeout = until.map(|until| until.since(now)).and_then(|wait| Timespec::try_from(wait).ok());
        let mut fds: Vec<PollFd<'_>> = vec![PollFd::from_borrowed_fd(self.signals.fd(), PollFlags::IN)];
        fds.extend(groups.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)));
        // Interrupted by a signal handler: the signal's descriptor is ready then.
        let polled = rustix::event::poll(&mut fds, timeout.as_ref());
        let mut flags = fds.iter().map(|fd| !fd.revents().is_empty());
        let signalled = flags.next().unwrap_or(false) || polled.is_err();
        let ready = groups.iter().map(|group| flags.by_ref().take(group.len()).filter(|ready| *ready).count() > 0).collect();
        drop(flags);
        drop(fds);
        let mut stops = std::mem::take(&mut self.kept);
        if signalled {
            let arrived = self.signals.take();
            stops.extend(arrived.stops);
            if arrived.child {
                family.reap_strays();
            }
        }
        self.watchdog.keep_alive(clock.now());
        Heard { ready, stops }
    }
}
