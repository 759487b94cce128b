//! One target and the thread that tells it: reports wait in a short queue, a failure is tried again, and nobody waits for
//! a server longer than he wants to. Touches its target alone.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::time::Duration;

use super::report::Report;
use super::target::Target;

/// How many reports wait for a target. More are dropped, and told.
const QUEUE: usize = 64;

/// How hard is tried to tell somebody.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long one question may take.
    pub limit: Duration,
    /// The waits before the second try, the third, and so on.
    pub pauses: &'static [Duration],
}

/// The caller's end of it.
pub struct Outlet {
    key: &'static str,
    wants: fn(&Report) -> bool,
    reports: SyncSender<Arc<Report>>,
    done: Receiver<()>,
    /// Reports that are on their way.
    open: usize,
    /// Dropped when there is no time for pauses any more.
    hurry: Option<Sender<()>>,
}

impl Outlet {
    /// Starts the thread.
    ///
    /// # Errors
    /// There is none to be had.
    #[expect(clippy::disallowed_methods, reason = "the tasks of the run are done, and only a thread can be left behind")]
    pub fn start(target: Target, patience: Patience) -> io::Result<Self> {
        let (reports, inbox) = sync_channel::<Arc<Report>>(QUEUE);
        let (tell_done, done) = channel();
        let (hurry, hurried) = channel();
        let (key, wants) = (target.key(), target.wants());
        let work = move || {
            for report in inbox {
                tell(&target, &report, patience, &hurried);
                // Nobody may be there any more.
                let _ = tell_done.send(());
            }
        };
        std::thread::Builder::new().name("push".to_owned()).spawn(work)?;
        Ok(Self { key, wants, reports, done, open: 0, hurry: Some(hurry) })
    }

    /// Puts a report into the queue, if the target wants to hear of such.
    pub fn send(&mut self, report: &Arc<Report>) {
        if !(self.wants)(report) {
            return;
        }
        self.open = self.open.saturating_sub(self.done.try_iter().count());
        match self.reports.try_send(report.clone()) {
            Ok(()) => self.open += 1,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                let (what, name) = report.subject();
                log::warn!("{}: what it is to hear of {what} {name} is dropped: {QUEUE} reports before it wait", self.key);
            }
        }
    }

    /// Whether a report before the newest one is still on its way.
    pub fn is_behind(&self) -> bool {
        self.open > 1
    }

    /// There is no time for pauses any more.
    pub fn hurry(&mut self) {
        self.hurry = None;
    }

    /// Waits until all was told, at most for `limit`; tells whether it was.
    pub fn wait(&mut self, limit: Duration) -> bool {
        while self.open > 0 {
            match self.done.recv_timeout(limit) {
                Ok(()) => self.open -= 1,
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => self.open = 0,
            }
        }
        true
    }

    /// The key of its target.
    pub fn key(&self) -> &'static str {
        self.key
    }
}

/// Tells the target, again after each pause. The last failure is a warning.
fn tell(target: &Target, report: &Report, patience: Patience, hurried: &Receiver<()>) {
    let mut pauses = patience.pauses.iter();
    while let Err(error) = target.deliver(report, patience.limit) {
        match pauses.next().filter(|_| error.may_pass()) {
            Some(pause) => {
                log::debug!("{}: {error}; it is tried again", target.key());
                // Woken when somebody waits for the end: then what is left of the tries follows at once.
                let _ = hurried.recv_timeout(*pause);
            }
            None => {
                let (what, name) = report.subject();
                log::warn!(event = "push_failed", chain = name; "{}: {error}; the {what} is not touched by that", target.key());
                return;
            }
        }
    }
}
