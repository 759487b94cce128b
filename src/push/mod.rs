//! Tells others of each run: metrics to a textfile, a Pushgateway, InfluxDB; a sign of life to a file, Consul, etcd.
//! Hears events. What goes wrong here is a warning and never touches a run: each target has a thread of its own, which is
//! left behind when it hangs. Where the configuration names no target there is no thread, no socket, and no file.

pub mod file;
#[cfg(feature = "net")]
pub mod http;
pub mod outlet;
#[cfg(feature = "net")]
pub mod remote;
pub mod report;
pub mod target;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use thiserror::Error;

use crate::clock::Clock;
use crate::config::push::PushSettings;
use crate::event::{Event, Reader, RunRef};
use crate::names::RunId;
use crate::opinion::Opinion;
use crate::outcome::{RunOutcome, Verdict};
use crate::status::{Ended, Queue};
use outlet::{Outlet, Patience};
use report::{Report, RunEnd, What};
use target::Target;

/// How long the end of a run, or of the program, waits for those who are told.
const LONGEST: Duration = Duration::from_secs(3);
/// The same where somebody told us to stop.
const SHORTEST: Duration = Duration::from_secs(1);
/// Where somebody waits.
const BRIEF: Patience = Patience { limit: Duration::from_secs(2), pauses: &[Duration::from_millis(100), Duration::from_millis(400)] };
/// Where nobody does.
const LONG: Patience =
    Patience { limit: Duration::from_secs(10), pauses: &[Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(25)] };

/// Why somebody was not told.
#[derive(Debug, Error)]
pub enum PushError {
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// There is no answer.
    #[cfg(feature = "net")]
    #[error("{server}: {why}")]
    Unreachable {
        /// Who was asked.
        server: String,
        /// Why.
        why: String,
    },
    /// The answer is no.
    #[cfg(feature = "net")]
    #[error("{server}: answers {status} {why}")]
    Refused {
        /// Who was asked.
        server: String,
        /// The status of the answer.
        status: u16,
        /// What it says.
        why: String,
    },
}

#[cfg(feature = "net")]
impl From<crate::client::BadFile> for PushError {
    fn from(bad: crate::client::BadFile) -> Self {
        Self::File { path: bad.path, error: bad.error }
    }
}

impl PushError {
    /// Whether it may go away by itself within seconds.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::File { .. } => false,
            #[cfg(feature = "net")]
            Self::Unreachable { .. } => true,
            #[cfg(feature = "net")]
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
        }
    }
}

/// Who waits for those who are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// The end of each run: the halt task behind it may take the machine away.
    EachRun,
    /// Only the end of the program: other runs go on.
    TheEnd,
}

/// Tells others of runs. Its clones are the same one.
#[derive(Clone, Default)]
pub struct Push(Option<Rc<RefCell<Inner>>>);

/// The exit code of an outcome.
pub type ExitCode = fn(&RunOutcome) -> u8;

struct Inner {
    host: String,
    zone: TimeZone,
    clock: Box<dyn Clock>,
    waits: Waits,
    exit_code: ExitCode,
    settings: PushSettings,
    /// Begun when there is something to tell.
    outlets: Option<Vec<Outlet>>,
    /// Tries in runs that go on.
    tries: HashMap<RunId, Tries>,
}

/// What is counted of the tries of a run.
#[derive(Default)]
struct Tries {
    /// Those that failed.
    failed: u32,
    /// Those that said so of themselves, in the order of [`Opinion::ALL`].
    said: [u32; 3],
}

impl Push {
    /// Tells those whom the settings name. `zone` is that of the machine; it is asked for only where it is needed.
    pub fn new(settings: PushSettings, waits: Waits, exit_code: ExitCode, clock: Box<dyn Clock>, zone: impl FnOnce() -> TimeZone) -> Self {
        if settings.is_empty() && waits == Waits::EachRun {
            return Self(None);
        }
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let inner = Inner { host, zone: zone(), clock, waits, exit_code, settings, outlets: None, tries: HashMap::new() };
        Self(Some(Rc::new(RefCell::new(inner))))
    }

    /// From now on those are told whom these settings name.
    pub fn reload(&self, settings: PushSettings) {
        if let Some(inner) = &self.0 {
            let mut inner = inner.borrow_mut();
            if inner.settings != settings {
                // The threads of the old ones end when they have told what they had.
                inner.outlets = None;
                inner.settings = settings;
            }
        }
    }

    /// Whether anybody wants to hear of queues.
    pub fn wants_queues(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| {
            let settings = &inner.borrow().settings;
            settings.textfile.is_some() || settings.influxdb.is_some() || settings.pushgateway.is_some()
        })
    }

    /// This is how queues stand.
    pub fn queues(&self, queues: Vec<Queue>) {
        if let Some(inner) = &self.0 {
            let mut inner = inner.borrow_mut();
            queues.into_iter().for_each(|queue| inner.tell(&queue.name.clone(), What::Queue(Box::new(queue)), LONGEST));
        }
    }

    /// A run of `chain` does not begin, and why in a word.
    pub fn refused(&self, chain: &str, reason: &str) {
        if let Some(inner) = &self.0 {
            inner.borrow_mut().tell(chain, What::Refused { reason: reason.to_owned() }, LONGEST);
        }
    }
}

impl Reader for Push {
    fn tell(&mut self, run: &RunRef, event: &Event<'_>) {
        let Some(inner) = &self.0 else { return };
        let mut inner = inner.borrow_mut();
        match event {
            Event::TaskEnded(end) if end.verdict == Verdict::Retry || end.said.is_some() => {
                let tries = inner.tries.entry(run.id.clone()).or_default();
                tries.failed += u32::from(end.verdict == Verdict::Retry);
                for (opinion, count) in Opinion::ALL.into_iter().zip(&mut tries.said) {
                    *count += u32::from(end.said == Some(opinion));
                }
            }
            Event::RunEnded { outcome, duration, started, .. } => {
                let Tries { failed, said } = inner.tries.remove(&run.id).unwrap_or_default();
                let end = RunEnd {
                    run_id: run.id.as_str().to_owned(),
                    trigger: run.trigger.kind.word(),
                    outcome: ended(outcome),
                    exit_code: (inner.exit_code)(outcome),
                    duration: *duration,
                    tries: *started,
                    failed,
                    said,
                };
                let limit = if matches!(outcome, RunOutcome::Signalled(_)) { SHORTEST } else { LONGEST };
                inner.tell(&run.chain, What::Ended(end), limit);
            }
            Event::RunRefused { .. } => inner.tell(&run.chain, What::Refused { reason: "lock".to_owned() }, LONGEST),
            Event::RunStarted { .. }
            | Event::TaskStarted { .. }
            | Event::TaskProgress { .. }
            | Event::TaskEnding { .. }
            | Event::TaskEnded(_)
            | Event::TaskSleeping { .. }
            | Event::RunRetry { .. }
            | Event::HaltStarted { .. }
            | Event::HaltEnded { .. }
            | Event::HookFailed { .. }
            | Event::Stopping { .. } => {}
        }
    }
}

fn ended(outcome: &RunOutcome) -> Ended {
    match outcome {
        RunOutcome::Done => Ended::Done,
        RunOutcome::GaveUp { .. } => Ended::GaveUp,
        RunOutcome::Halted { .. } => Ended::Halted,
        RunOutcome::StoppedByTask { .. } => Ended::Stopped,
        RunOutcome::LockLost => Ended::LockLost,
        RunOutcome::Signalled(_) => Ended::Signalled,
    }
}

impl Inner {
    fn tell(&mut self, chain: &str, what: What, limit: Duration) {
        if self.settings.is_empty() {
            return;
        }
        let report = Arc::new(Report { host: self.host.clone(), chain: chain.to_owned(), at: self.clock.wall(), what });
        let (settings, zone, waits) = (&self.settings, &self.zone, self.waits);
        let outlets = self.outlets.get_or_insert_with(|| begin(settings, zone, waits));
        outlets.iter_mut().for_each(|outlet| outlet.send(&report));
        if self.waits == Waits::EachRun {
            // Nobody waits again for one that hangs.
            self.wait(limit, Outlet::is_behind);
        }
    }

    /// Whoever was not told in time is left behind: it may hear of it yet.
    fn wait(&mut self, limit: Duration, given_up: fn(&Outlet) -> bool) {
        let began = self.clock.now();
        for outlet in self.outlets.iter_mut().flatten() {
            let left = limit.saturating_sub(self.clock.now().since(began));
            if given_up(outlet) || !outlet.wait(left) {
                let (key, seconds) = (outlet.key(), limit.as_secs());
                log::warn!(event = "push_failed"; "{key}: there is no answer within {seconds} s; it is left behind");
            }
        }
    }
}

fn begin(settings: &PushSettings, zone: &TimeZone, waits: Waits) -> Vec<Outlet> {
    let patience = match waits {
        Waits::EachRun => BRIEF,
        Waits::TheEnd => LONG,
    };
    let start = |target: Target| {
        let key = target.key();
        Outlet::start(target, patience).inspect_err(|error| log::warn!("{key}: there is no thread to be had: {error}")).ok()
    };
    Target::all(settings, zone).into_iter().filter_map(start).collect()
}

impl Drop for Inner {
    /// What waits for its next try gets it now.
    fn drop(&mut self) {
        self.outlets.iter_mut().flatten().for_each(Outlet::hurry);
        if self.waits == Waits::TheEnd {
            self.wait(LONGEST, |_| false);
        }
    }
}
