//! Several runs in one loop, each to its own end: `now`, `tick` and the daemon.

use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use jiff::Timestamp;

use super::run::Run;
use super::setup::Setup;
use super::{Driver, News};
use crate::clock::Moment;
use crate::event::RunRef;
use crate::hook::HookRun;

/// The runs that go on at this moment, and the hooks of runs that did not begin.
pub struct Fleet<'a> {
    driver: Driver<'a>,
    runs: Vec<Run>,
    hooks: Vec<(String, HookRun)>,
}

impl<'a> Fleet<'a> {
    /// No run yet.
    pub fn new(driver: Driver<'a>) -> Self {
        Self { driver, runs: Vec::new(), hooks: Vec::new() }
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

    /// Begins a run beside those that go on.
    pub fn begin(&mut self, setup: Rc<Setup>, run: RunRef, variables: &[CString]) {
        self.runs.push(Run::begin(setup, run, variables, &mut self.driver.world));
    }

    /// A hook of a chain whose run did not begin; nobody waits for it but the end of the program.
    pub fn add_hook(&mut self, chain: &str, hook: HookRun) {
        self.hooks.push((chain.to_owned(), hook));
    }

    /// The runs that go on, in the order in which they began.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Whether neither a run nor a hook goes on.
    pub fn is_quiet(&self) -> bool {
        self.runs.is_empty() && self.hooks.is_empty()
    }

    /// Whether a run of the chain goes on.
    pub fn is_running(&self, chain: &str) -> bool {
        self.runs.iter().any(|run| run.run_ref().chain == chain)
    }

    /// Tells the runs of one chain, or all, to stop.
    pub fn stop(&mut self, chain: Option<&str>, signal: i32) {
        for run in self.runs.iter_mut().filter(|run| chain.is_none_or(|chain| run.run_ref().chain == chain)) {
            run.stop(signal, &mut self.driver.world);
        }
    }

    /// Waits until something happens to a run, one of `also` is ready, a signal arrives, or `deadline` passes. No run may
    /// begin before [`Fleet::advance`] has seen the news.
    pub fn listen(&mut self, also: &[BorrowedFd<'_>], deadline: Option<Moment>) -> News {
        let hooks = self.hooks.iter().flat_map(|(_, hook)| hook.process().fds());
        let all: Vec<BorrowedFd<'_>> = also.iter().copied().chain(hooks).collect();
        let deadline = self.hooks.iter().filter_map(|(_, hook)| hook.wake_at()).chain(deadline).min();
        self.driver.listen(&self.runs, &all, deadline)
    }

    /// Lets every run and hook act on what was heard; the runs that have ended.
    pub fn advance(&mut self, news: &News) -> Vec<Run> {
        self.driver.advance(&mut self.runs, news);
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
        self.runs.extract_if(.., |run| run.outcome().is_some()).collect()
    }
}
