//! What the loop listens to: signals, descriptors, the next deadline, and the service manager's watchdog.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use libc::SIGHUP;
use rustix::event::{PollFd, PollFlags, Timespec};
use smallvec::SmallVec;

use crate::clock::{Clock, Moment};
use crate::notify::systemd::Watchdog;
use crate::process::Family;
use crate::process::signal::Signals;

/// A task that runs longer than this may leave dead orphans behind that are worth a signal each.
const LONG_RUN: Duration = Duration::from_secs(1);

/// One wish to stop may come as two signals: timeout(1) sends TERM to us, and then to our process group. Nobody types so fast.
const ONE_WISH: Duration = Duration::from_millis(100);

/// For each descriptor that is listened to, whether it is ready. One task at a time has so few that no memory is asked for.
pub type Ready = SmallVec<[bool; 8]>;

/// Waits for the next thing to happen.
#[derive(Debug)]
pub struct Ears {
    signals: Signals,
    watchdog: Watchdog,
    kept: Vec<i32>,
    last: LastStop,
    /// When we begin to hear of children that are not ours, if nothing has been started by then.
    attend_at: Option<(Moment, u64)>,
}

/// The signal that came last, and when.
#[derive(Debug, Default)]
struct LastStop(Option<(i32, Moment)>);

impl LastStop {
    /// Whether a signal is no echo of the one before it. HUP never is: who changes a file twice has it read twice.
    fn is_new(&mut self, signal: i32, now: Moment) -> bool {
        let is_echo = signal != SIGHUP && self.0.is_some_and(|(last, at)| last == signal && now < at + ONE_WISH);
        if !is_echo {
            self.0 = Some((signal, now));
        }
        !is_echo
    }
}

/// What has happened.
#[derive(Debug)]
pub struct Heard {
    /// When.
    pub now: Moment,
    /// For each of the descriptors, whether it is ready.
    pub ready: Ready,
    /// Signals to stop that have arrived.
    pub stops: Vec<i32>,
}

impl Ears {
    /// Listens to these.
    pub fn new(signals: Signals, watchdog: Watchdog) -> Self {
        Self { signals, watchdog, kept: Vec::new(), last: LastStop::default(), attend_at: None }
    }

    /// Keeps signals that came while nobody could act on them, for the next to listen.
    pub fn keep(&mut self, stops: &[i32]) {
        self.kept.extend(stops);
    }

    /// How many signals are kept.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// While tasks run only for a moment, whoever they orphaned is buried with them. When nothing begins for longer we
    /// begin to hear of every child: a task whose orphans end by the thousand must not fill the process table.
    fn attend(&mut self, now: Moment, timed_out: bool, family: &Family) {
        if self.signals.hears_children() {
            return;
        }
        match self.attend_at {
            _ if family.is_idle() => self.attend_at = None,
            Some((_, started)) if started != family.started() => self.attend_at = Some((now + LONG_RUN, family.started())),
            None => self.attend_at = Some((now + LONG_RUN, family.started())),
            Some((at, _)) if timed_out && now >= at => {
                self.signals.hear_children();
                family.reap_strays();
                self.attend_at = None;
            }
            Some(_) => {}
        }
    }

    /// Waits until one of `fds` is ready, a signal arrives or the deadline passes; gives the watchdog its signs
    /// meanwhile, and buries adopted children.
    pub fn listen(&mut self, fds: Vec<PollFd<'_>>, deadline: Option<Moment>, family: &Family, clock: &dyn Clock) -> Heard {
        let now = clock.now();
        self.attend(now, false, family);
        let until = if self.kept.is_empty() {
            deadline.into_iter().chain(self.watchdog.wake_at()).chain(self.attend_at.map(|(at, _)| at)).min()
        } else {
            Some(now)
        };
        // Milliseconds of a poll would end up to one too early, and spin; nanoseconds do not.
        let timeout = until.map(|until| until.since(now)).and_then(|wait| Timespec::try_from(wait).ok());
        let mut fds: Vec<PollFd<'_>> = fds;
        fds.push(readable(self.signals.fd()));
        // Interrupted by a signal handler: the signal's descriptor is ready then.
        let polled = rustix::event::poll(&mut fds, timeout.as_ref());
        let mut ready: Ready = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let signalled = ready.pop() == Some(true) || polled.is_err();
        let mut stops = std::mem::take(&mut self.kept);
        if signalled {
            let arrived = self.signals.take();
            let now = clock.now();
            stops.extend(arrived.stops.into_iter().filter(|signal| self.last.is_new(*signal, now)));
            if arrived.child {
                family.reap_strays();
            }
        }
        let now = clock.now();
        self.attend(now, true, family);
        self.watchdog.keep_alive(now);
        Heard { now, ready, stops }
    }
}

/// A descriptor that is listened to until there is something to read, or its other end is closed.
pub fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, PollFlags::IN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_comes_twice_at_once_is_one_wish() {
        const TERM: i32 = 15;
        const INT: i32 = 2;
        let mut last = LastStop::default();
        let mut is_new = |signal, millis| last.is_new(signal, Moment::at(Duration::from_millis(millis)));
        assert!(is_new(TERM, 0));
        assert!(!is_new(TERM, 4), "timeout(1) tells us, and our process group");
        assert!(is_new(INT, 5), "another one is another wish");
        assert!(!is_new(INT, 104));
        assert!(is_new(INT, 105), "it counts from the first");
        assert!(is_new(SIGHUP, 106) && is_new(SIGHUP, 107), "each asks for a reload");
    }
}
