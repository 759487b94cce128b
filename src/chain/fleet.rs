//! Several runs in one loop, each to its own end: `now`, `tick` and the daemon.

use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use jiff::Timestamp;

use super::hold::LockPlan;
use super::locks::{Answer, Locks, under};
use super::run::Run;
use super::setup::Setup;
use super::{Driver, News};
use crate::clock::Moment;
use crate::event::{RunRef, StoppedBy};
use crate::hook::HookRun;
#[cfg(feature = "schedule")]
use crate::mark::Place;
use crate::names::RunId;
use crate::notify::inbox::Socket;

/// A chain that can be run, once.
pub struct Ready {
    /// Its tasks.
    pub setup: Rc<Setup>,
    /// The variables by which they find the configuration.
    pub variables: Vec<CString>,
    /// The lock that a run needs.
    pub lock: Option<LockPlan>,
    /// What its run was given a moment before.
    pub opened: Opened,
}

/// What of a run was opened before the moment in which it begins, so that nothing is left for that moment but to start it.
#[derive(Debug, Default)]
pub struct Opened {
    /// Where it takes its mark.
    #[cfg(feature = "schedule")]
    pub place: Option<Place>,
    /// Where it will hear its tasks.
    pub socket: Option<Socket>,
}

/// The runs that go on at this moment, and the hooks of runs that did not begin.
pub struct Fleet<'a> {
    driver: Driver<'a>,
    runs: Vec<Run>,
    hooks: Vec<(String, HookRun)>,
    locks: Locks,
}

impl<'a> Fleet<'a> {
    /// No run yet.
    pub fn new(driver: Driver<'a>) -> Self {
        Self { driver, runs: Vec::new(), hooks: Vec::new(), locks: Locks::default() }
    }

    /// The loop all runs are in.
    pub fn driver(&mut self) -> &mut Driver<'a> {
        &mut self.driver
    }

    /// Now, by the clock that nobody sets.
    pub fn now(&self) -> Moment {
        self.driver.world.clock.now()
    }

    /// Now, by the clock on the wall.
    pub fn wall(&self) -> Timestamp {
        self.driver.world.clock.wall()
    }

    /// Begins a run beside those that go on, under its lock where that was asked for and is ours.
    pub fn begin(&mut self, ready: Ready, run: RunRef) {
        let Ready { setup, variables, opened, .. } = ready;
        let token = self.locks.enter(&run.id);
        let variables: Vec<CString> = variables.into_iter().chain(token).collect();
        let hold = self.locks.of_run(&run.id);
        let begun = under(hold, &mut self.driver, |world| Run::begin_with(opened.socket, setup, run, variables, world));
        self.runs.push(begun);
    }

    /// Asks for the lock that a run needs; [`Fleet::answer`] tells what comes of it, at once or later.
    pub fn ask(&mut self, plan: LockPlan, run: RunRef) {
        self.locks.ask(plan, run, &self.driver.world);
    }

    /// What came of asking for a lock: after each [`Fleet::ask`] and [`Fleet::advance`], until there is none.
    pub fn answer(&mut self) -> Option<Answer> {
        self.locks.answer()
    }

    /// The run does not begin after all: its lock is not asked for any more, or given back.
    pub fn withdraw(&mut self, run: &RunId) {
        self.locks.leave(run, &self.driver.world);
    }

    /// Gives back the locks that are kept for chains that do not want them any more.
    pub fn keep_only(&mut self, wanted: impl Fn(&str, &LockPlan) -> bool) {
        self.locks.keep_only(wanted, &self.driver.world);
    }

    /// The runs that wait for their lock, and why.
    pub fn waiting(&self) -> impl Iterator<Item = (&RunRef, &str)> {
        self.locks.waiting()
    }

    /// Nothing more will begin: gives back what is kept. `false` while something is still on its way back.
    pub fn close(&mut self) -> bool {
        self.locks.close(&self.driver.world)
    }

    /// A hook of a chain whose run did not begin; nobody waits for it but the end of the program.
    pub fn add_hook(&mut self, chain: &str, hook: HookRun) {
        self.hooks.push((chain.to_owned(), hook));
    }

    /// The runs that go on, in the order in which they began.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Whether neither a run nor a hook goes on, and no lock is asked for or given back.
    pub fn is_quiet(&self) -> bool {
        self.runs.is_empty() && self.hooks.is_empty() && self.locks.is_quiet()
    }

    /// Whether a run of the chain goes on.
    pub fn is_running(&self, chain: &str) -> bool {
        self.runs.iter().any(|run| run.run_ref().chain == chain)
    }

    /// Tells the runs of one chain, or all, to stop.
    pub fn stop(&mut self, chain: Option<&str>, signal: i32, by: &StoppedBy) {
        for run in self.runs.iter_mut().filter(|run| chain.is_none_or(|chain| run.run_ref().chain == chain)) {
            under(self.locks.of_run(&run.run_ref().id), &mut self.driver, |world| run.stop(signal, by, world));
        }
    }

    /// Waits until something happens to a run, one of `also` is ready, a signal arrives, or `deadline` passes. No run may
    /// begin before [`Fleet::advance`] has seen the news.
    pub fn listen(&mut self, also: &[BorrowedFd<'_>], deadline: Option<Moment>) -> News {
        self.locks.note(&self.runs);
        let news = {
            let holds = self.locks.holds();
            let hooks = self.hooks.iter().flat_map(|(_, hook)| hook.process().fds());
            let locks = holds.iter().flat_map(|hold| hold.fds());
            let all: Vec<BorrowedFd<'_>> = also.iter().copied().chain(hooks).chain(locks).collect();
            let own = self.hooks.iter().filter_map(|(_, hook)| hook.wake_at()).chain(self.locks.wake_at());
            self.driver.listen(&self.runs, &all, own.chain(deadline).min())
        };
        self.locks.look(&self.runs, &news);
        // The locks first: whoever was frozen must not go on with anything before that is known.
        self.locks.hear(&mut self.runs, &mut self.driver);
        news
    }

    /// Lets every run and hook act on what was heard; the runs that have ended.
    pub fn advance(&mut self, news: &News) -> Vec<Run> {
        for run in &mut self.runs {
            let hold = self.locks.of_run(&run.run_ref().id);
            under(hold, &mut self.driver, |world| run.advance(news, world));
        }
        let now = self.driver.world.clock.now();
        let family = self.driver.world.family;
        self.hooks.retain_mut(|(chain, hook)| match hook.advance(family, now) {
            None => true,
            Some(Ok(())) => false,
            Some(Err(why)) => {
                log::warn!("chain {chain}: {}: {why}", hook.key);
                false
            }
        });
        self.take_ended()
    }

    /// Takes away the runs that have ended.
    pub fn take_ended(&mut self) -> Vec<Run> {
        let ended: Vec<Run> = self.runs.extract_if(.., |run| run.outcome().is_some()).collect();
        for run in &ended {
            self.locks.ended(run, &self.driver.world);
        }
        ended
    }
}
