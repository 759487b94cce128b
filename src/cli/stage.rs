//! What a command that runs something stands on: clocks, signals, the family of its processes, and who hears of events.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::record::Record;
use crate::chain::ears::Ears;
use crate::chain::{Driver, World};
use crate::clock::{Clock, SystemClock};
use crate::event::{Doing, Event, Reader, RunRef};
use crate::names::{RunId, RunIds};
use crate::notify::systemd::{Status, Watchdog};
use crate::opinion::Opinion;
use crate::process::signal::Signals;
use crate::process::unix::WaitMethod;
use crate::process::{Family, close_stdin};
use crate::push::Push;
use crate::report::Reporter;
use crate::report::bars::Bars;

/// The clocks, the signals, the processes and the readers of events. One for the whole program.
pub struct Stage {
    clock: SystemClock,
    family: Family,
    ears: Ears,
    readers: Readers,
    rng: SmallRng,
    ids: RunIds,
}

impl Stage {
    /// Takes the process over: standard input, signals, orphans. `managed` is whether a service manager listens,
    /// `longest_stop` what it is told a stop may take.
    ///
    /// # Errors
    /// The kernel gives no descriptor, or refuses a signal handler.
    pub fn new(managed: bool, bars: Option<Bars>, longest_stop: Duration, record: Record) -> anyhow::Result<Self> {
        Self::hearing(hear_signals()?, managed, bars, longest_stop, record)
    }

    /// The same with signals that are heard already.
    ///
    /// # Errors
    /// The kernel gives no descriptor.
    pub fn hearing(signals: Signals, managed: bool, bars: Option<Bars>, longest_stop: Duration, record: Record) -> anyhow::Result<Self> {
        close_stdin().context("standard input cannot be closed")?;
        let clock = SystemClock::new();
        let family = Family::new(WaitMethod::detect());
        let ears = Ears::new(signals, Watchdog::new(managed, clock.now()));
        let readers = Readers {
            reporter: Reporter::new(bars),
            status: Status::new(managed, longest_stop),
            record,
            push: Push::default(),
            said: None,
        };
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let ids = RunIds::new(boot_id, random());
        Ok(Self { clock, family, ears, readers, rng: SmallRng::seed_from_u64(random()), ids })
    }

    /// Many may run at once.
    pub fn expect_many(&self) {
        self.family.expect_many();
    }

    /// Others are told of runs, too.
    pub fn tell_others(&mut self, push: Push) {
        self.readers.push = push;
    }

    /// Keeps what the tasks of each run say of themselves, for who prints what became of it.
    pub fn keep_opinions(&mut self, said: &Said) {
        self.readers.said = Some(said.clone());
    }

    /// The service manager does not hear what each run does: somebody else tells it how things stand.
    #[cfg(all(feature = "schedule", feature = "store"))]
    pub fn be_silent_about_runs(&mut self) {
        self.readers.status = Status::new(false, Duration::ZERO);
    }

    /// The loop that stands on it, and the source of run ids.
    pub fn driver(&mut self) -> (Driver<'_>, &mut RunIds) {
        let Self { clock, family, ears, readers, rng, ids } = self;
        (Driver { ears, world: World { family, clock, reader: readers, rng } }, ids)
    }
}

/// Hears the signals that stop us, from now on.
///
/// # Errors
/// The kernel refuses a signal handler.
pub fn hear_signals() -> anyhow::Result<Signals> {
    Signals::install().context("signals cannot be heard")
}

/// A random number from the keys that std draws for its hash maps: these never wait for entropy (getrandom(2) with
/// GRND_INSECURE), which a machine that has just started may lack for minutes.
pub fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// The gravest of what the tasks of each run said last of themselves.
#[derive(Debug, Clone, Default)]
pub struct Said(Rc<RefCell<Vec<(RunId, Opinion)>>>);

impl Said {
    /// That of a run that has ended, if one of its tasks said anything.
    pub fn of(&self, run: &RunRef) -> Option<Opinion> {
        self.0.borrow().iter().rfind(|(id, _)| *id == run.id).map(|(_, said)| *said)
    }

    fn hear(&self, run: &RunRef, event: &Event<'_>) {
        if let Event::RunEnded { said: Some(said), .. } = event {
            self.0.borrow_mut().push((run.id.clone(), said.opinion));
        }
    }
}

/// Everybody who hears of events.
struct Readers {
    reporter: Reporter,
    status: Status,
    record: Record,
    push: Push,
    said: Option<Said>,
}

impl Reader for Readers {
    fn tell(&mut self, run: &RunRef, event: &Event<'_>) {
        self.reporter.tell(run, event);
        self.status.tell(run, event);
        self.record.tell(run, event);
        self.push.tell(run, event);
        if let Some(said) = &self.said {
            said.hear(run, event);
        }
    }

    fn wake_in(&self) -> Option<std::time::Duration> {
        self.reporter.wake_in()
    }

    fn wake(&mut self) {
        self.reporter.wake();
    }

    fn describe(&self, run: &RunRef, doing: &Doing<'_>) -> Option<Vec<u8>> {
        self.record.describe(run, doing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_numbers_are_the_same() {
        let numbers: std::collections::HashSet<u64> = (0..100).map(|_| random()).collect();
        assert_eq!(numbers.len(), 100);
    }
}
