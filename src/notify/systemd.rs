//! What the service manager hears of us, when it asked for it with NOTIFY_SOCKET. Never fails: nobody listens mostly.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::clock::{Moment, Seconds};
use crate::event::{Event, Reader, RunRef, StoppedBy};
use crate::names::counted;

/// The watchdog's side: signs of life, at half the interval it wants (sd_watchdog_enabled(3)).
#[derive(Debug)]
pub struct Watchdog {
    beat: Option<(Duration, Moment)>,
}

impl Watchdog {
    /// Looks whether one watches. `connected` is whether NOTIFY_SOCKET is set; without it no socket is ever opened.
    pub fn new(connected: bool, now: Moment) -> Self {
        let interval = if connected { sd_notify::watchdog_enabled().map(|interval| interval / 2) } else { None };
        Self { beat: interval.map(|interval| (interval, now + interval)) }
    }

    /// When it wants a sign of life next.
    pub fn wake_at(&self) -> Option<Moment> {
        self.beat.map(|(_, at)| at)
    }

    /// Gives the sign, if it is time.
    pub fn keep_alive(&mut self, now: Moment) {
        if let Some((interval, at)) = &mut self.beat
            && now >= *at
        {
            send(&[NotifyState::Watchdog]);
            *at = now + *interval;
        }
    }
}

/// The daemon does what it is there for. `connected` is whether NOTIFY_SOCKET is set.
pub fn ready(connected: bool) {
    if connected {
        send(&[NotifyState::Ready]);
    }
}

/// The daemon reads its configuration again; [`ready`] says when it has (systemd.service(5), Type=notify-reload).
pub fn reloading(connected: bool) {
    if connected {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        send(&[NotifyState::Reloading, NotifyState::MonotonicUsec(micros)]);
    }
}

/// One line for people.
pub fn status(connected: bool, text: &str) {
    if connected {
        send(&[NotifyState::Status(text)]);
    }
}

/// The program is about to end. `connected` is whether NOTIFY_SOCKET is set.
pub fn stopping(connected: bool) {
    if connected {
        send(&[NotifyState::Stopping]);
    }
}

/// The program stops, which may take this long. A stop without an end is one of a century.
pub fn stopping_within(connected: bool, longest: Duration) {
    const CENTURY: u64 = 100 * 365 * 86_400;
    if connected {
        // sd-notify's own state ends at 71 minutes; the manager reads 64 bits, and takes the greatest for none.
        let micros = longest.min(Duration::from_secs(CENTURY)).as_micros();
        send(&[NotifyState::Stopping, NotifyState::Custom(&format!("EXTEND_TIMEOUT_USEC={micros}"))]);
    }
}

/// The program is up and waits for its turn. `connected` is whether NOTIFY_SOCKET is set.
pub fn waiting(connected: bool, why: &str) {
    if connected {
        send(&[NotifyState::Ready, NotifyState::Status(why)]);
    }
}

/// Tells the service manager what a run is doing.
#[derive(Debug)]
pub struct Status {
    connected: bool,
    /// How long a stop may take.
    longest_stop: Duration,
}

impl Status {
    /// A teller; `connected` is whether NOTIFY_SOCKET is set.
    pub fn new(connected: bool, longest_stop: Duration) -> Self {
        Self { connected, longest_stop }
    }
}

impl Reader for Status {
    fn tell(&mut self, run: &RunRef, event: &Event<'_>) {
        if !self.connected {
            return;
        }
        let chain = &run.chain;
        match event {
            Event::RunStarted { tasks } => {
                send(&[NotifyState::Ready, NotifyState::Status(&format!("chain {chain}: {}", counted(*tasks, "task")))])
            }
            Event::TaskStarted { task, try_num, .. } => send(&[NotifyState::Status(&format!("chain {chain}: {task}, try {try_num}"))]),
            Event::TaskProgress { task, percent: Some(percent), .. } => {
                send(&[NotifyState::Status(&format!("chain {chain}: {task}, {percent}%"))])
            }
            Event::RunRetry { wait, try_num, .. } => {
                send(&[NotifyState::Status(&format!("chain {chain}: try {try_num} in {}", Seconds(*wait)))])
            }
            Event::HaltStarted { reason, .. } => send(&[NotifyState::Status(&format!("chain {chain}: halt task, {}", reason.word()))]),
            Event::RunEnded { outcome, .. } => send(&[NotifyState::Status(&format!("chain {chain}: {}", outcome.word()))]),
            Event::Stopping { by: StoppedBy::Signal | StoppedBy::Daemon, .. } => {
                stopping_within(self.connected, self.longest_stop);
            }
            // Only this run: whoever says that it stops is ended when that takes too long.
            Event::Stopping { by: StoppedBy::Asked | StoppedBy::Slot(_), .. } => {}
            Event::TaskProgress { percent: None, .. }
            | Event::TaskEnding { .. }
            | Event::TaskEnded(_)
            | Event::TaskSleeping { .. }
            | Event::HaltEnded { .. }
            | Event::HookFailed { .. }
            | Event::RunRefused { .. } => {}
        }
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("the service manager does not hear us: {error}");
    }
}
