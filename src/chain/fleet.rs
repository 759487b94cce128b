//! Several runs in one loop, each to its own end: `now`, `tick` and the daemon.

use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use super::run::Run;
use super::setup::Setup;
use super::{Driver, News};
use crate::clock::Moment;
use crate::event::RunRef;

/// The runs that go on at this moment.
pub struct Fleet<'a> {
    driver: Driver<'a>,
    runs: Vec<Run>,
}

impl<'a> Fleet<'a> {
    /// No run yet.
    pub fn new(driver: Driver<'a>) -> Self {
        Self { driver, runs: Vec::new() }
    }

    /// The loop all runs are in.
    pub fn driver(&mut self) -> &mut Driver<'a> {
        &mut self.driver
    }

    /// Begins a run beside those that go on.
    pub fn begin(&mut self, setup: Rc<Setup>, run: RunRef, variables: &[CString]) {
        self.runs.push(Run::begin(setup, run, variables, &mut self.driver.world));
    }

    /// The runs that go on, in the order in which they began.
    pub fn runs(&self) -> &[Run] {
        &self.runs
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
        self.driver.listen(&self.runs, also, deadline)
    }

    /// Lets every run act on what was heard; those that have ended.
    pub fn advance(&mut self, news: &News) -> Vec<Run> {
        self.driver.advance(&mut self.runs, news);
        self.take_ended()
    }

    /// Takes away the runs that have ended.
    pub fn take_ended(&mut self) -> Vec<Run> {
        self.runs.extract_if(.., |run| run.outcome().is_some()).collect()
    }
}
