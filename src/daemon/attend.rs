//! Those who look at the daemon, and what the state is asked for them: how many jobs there are, and what the history knows of runs
//! before us and in other programs. Nobody else makes us ask, so a daemon at rest stays asleep; and nobody waits for long.

use std::collections::HashMap;
use std::time::Duration;

use super::Daemon;
use super::book::Book;
use super::view;
use super::waiting::Waiting;
use crate::clock::Moment;
use crate::names::MAIN_CHAIN;
use crate::store::desk::Health;
use crate::store::past::Known;

/// What the history was asked is new for so long.
pub(super) const FRESH: Duration = Duration::from_secs(2);
/// So long somebody who looks waits for it; then he is shown what was known before.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);

impl Daemon<'_> {
    /// Somebody outside asks for something. Jobs are counted first, and the history is asked what others ran, if that was not done
    /// just now: the answer, or its absence, brings us here again.
    pub(super) fn attend(&mut self) {
        let now = self.parts.fleet.now();
        let (asks_history, counts) = (self.asks_history(now), self.counts_jobs(now));
        if asks_history || counts {
            return;
        }
        let mut unread = None;
        let book = match &self.book {
            Some(book) => book,
            None => unread.insert(self.unread_book()),
        };
        let (fleet, state) = (&self.parts.fleet, &self.parts.state);
        let slots = Waiting { backlog: &self.backlog, rounds: &self.rounds, runs: fleet.runs(), state };
        let view = view((book, self.book.is_none()), fleet, slots, (&self.crew, &self.depths), (&self.trouble, self.mode));
        for answer in self.parts.outside.asked(&view) {
            self.tick_now(answer);
        }
    }

    /// The chains, as long as nobody knows which of their slots are used: none of them runs before that.
    pub(super) fn unread_book(&self) -> Book {
        Book::new(self.chains.clone(), &HashMap::new(), self.parts.state.machine(), self.parts.fleet.wall())
    }

    /// Asks how many jobs there are, if that is worth while. Tells whether the answer is worth waiting for.
    fn counts_jobs(&mut self, now: Moment) -> bool {
        if !self.parts.outside.shows_queues() {
            return false;
        }
        match self.parts.state.health() {
            Health::Away(why) => self.depths.give_up(why),
            Health::Opening | Health::Good if self.depths.is_lost(now) => self.depths.give_up(self.parts.state.why_slow()),
            Health::Opening | Health::Good if self.depths.is_old(now) => {
                self.parts.state.count(self.parts.fleet.wall());
                self.depths.ask(now);
                return true;
            }
            Health::Opening | Health::Good => {}
        }
        false
    }

    /// The same of what other programs ran, and what ran before us.
    fn asks_history(&mut self, now: Moment) -> bool {
        self.history.is_old(now) && self.parts.state.health() == Health::Good && self.ask_history()
    }

    /// Asks how all chains stand by the history, where somebody can look at that. Tells whether it was asked: not before the state
    /// is known.
    pub(super) fn ask_history(&mut self) -> bool {
        let Some(book) = self.book.as_ref().filter(|_| self.parts.outside.shows_runs()) else { return false };
        let chains = book.chains().iter().map(|chain| chain.name().to_owned()).chain([MAIN_CHAIN.to_owned()]).collect();
        self.history.ask(self.parts.fleet.now());
        self.parts.state.look_back(chains, self.parts.fleet.wall());
        true
    }

    /// The history has told how some chains stand; the others are asked for.
    pub(super) fn heard_history(&mut self, known: &[(String, Known)], rest: Vec<String>) {
        if !known.is_empty() {
            self.parts.outside.remember(known);
        }
        if rest.is_empty() {
            self.history.hear(self.parts.fleet.now());
        } else {
            self.parts.state.remember(rest, self.parts.fleet.wall());
        }
    }
}
