//! Drives chains: the one loop of the program. It waits for a signal, a child or the next deadline, and lets every run
//! look what that means for it. `run` is one run, `step` the table it asks.

pub mod attempt;
pub mod ears;
pub mod fleet;
pub mod halt;
pub mod hold;
pub mod letters;
pub mod locks;
pub mod repeat;
pub mod run;
pub mod setup;
pub mod step;

use std::os::fd::BorrowedFd;

use rand::rngs::SmallRng;
use rustix::event::PollFd;

use crate::clock::{Clock, Moment};
use crate::event::{Reader, StoppedBy};
use crate::hook::HookRun;
use crate::process::Family;
use ears::{Ears, Heard, Ready, readable};
use run::Run;

/// What all runs of a loop share.
pub struct World<'a> {
    /// Everything we have started.
    pub family: &'a Family,
    /// The clocks.
    pub clock: &'a dyn Clock,
    /// Who hears of events.
    pub reader: &'a mut dyn Reader,
    /// The random part of waits.
    pub rng: &'a mut SmallRng,
}

/// The loop: what it listens to, and the world its runs live in.
pub struct Driver<'a> {
    /// Signals, and whatever else wakes us.
    pub ears: &'a mut Ears,
    /// What the runs share.
    pub world: World<'a>,
}

/// What was heard. Which part of it is whose each run knows.
#[derive(Debug)]
pub struct News {
    /// When it was heard.
    pub now: Moment,
    /// Signals to stop that have arrived, for the caller to act on.
    pub stops: Vec<i32>,
    /// For each of the caller's own descriptors, whether it is ready; behind them the same of those of the runs.
    pub ready: Ready,
}

impl Driver<'_> {
    /// Waits until something happens to one of `runs`, one of `also` is ready, a signal arrives, or `deadline` passes.
    pub fn listen(&mut self, runs: &[Run], also: &[BorrowedFd<'_>], deadline: Option<Moment>) -> News {
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(also.len() + 4 * runs.len() + 1);
        fds.extend(also.iter().copied().map(readable));
        runs.iter().for_each(|run| run.add_fds(&mut fds));
        let animation = self.world.reader.wake_in().map(|wait| self.world.clock.now() + wait);
        let deadlines = runs.iter().filter_map(Run::wake_at).chain(deadline).chain(animation);
        let Heard { now, ready, stops } = self.ears.listen(fds, deadlines.min(), self.world.family, self.world.clock);
        self.world.reader.wake();
        News { now, stops, ready }
    }

    /// Lets every run act on what was heard. `runs` are those that were listened to.
    pub fn advance(&mut self, runs: &mut [Run], news: &News) {
        for run in runs {
            run.advance(news, &mut self.world);
        }
    }

    /// Drives one run to its end; every signal to stop is meant for it.
    pub fn drive(&mut self, run: Run) -> Run {
        let mut runs = [run];
        while runs[0].outcome().is_none() {
            let news = self.listen(&runs, &[], None);
            for signal in &news.stops {
                runs[0].stop(*signal, &StoppedBy::Signal, &mut self.world);
            }
            self.advance(&mut runs, &news);
        }
        let [run] = runs;
        run
    }
}

/// Runs a hook to its end, where there is no run that it belongs to.
///
/// # Errors
/// How it failed, in words.
pub fn wait_for_hook(mut hook: HookRun, ears: &mut Ears, family: &Family, clock: &dyn Clock) -> Result<(), String> {
    loop {
        if let Some(result) = hook.advance(family, clock.now()) {
            return result;
        }
        let fds = hook.process().fds().map(readable).collect();
        let heard = ears.listen(fds, hook.wake_at(), family, clock);
        ears.keep(&heard.stops);
        if ears.kept() > 1 {
            hook.kill_now(family, clock.now());
        }
    }
}
