//! The slots that are ours and wait for their turn, and for whom: for those who look. Decides only.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;

use super::rounds::Rounds;
use super::{Offer, State};
use crate::chain::run::Run;
use crate::names::RunId;

/// Where slots wait.
pub struct Waiting<'a> {
    /// For the end of the run before them, by their chain.
    pub(super) backlog: &'a HashMap<String, VecDeque<Offer>>,
    /// For their turn as idle ones.
    pub(super) rounds: &'a Rounds<Offer>,
    /// Runs that go on, ...
    pub(super) runs: &'a [Run],
    /// ... and such as are being written down.
    pub(super) state: &'a State,
}

/// A slot that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotWait {
    /// Its chain.
    pub chain: String,
    /// For whom.
    pub behind: Behind,
}

/// For whom a slot waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behind {
    /// For the run of its own chain.
    ItsRun,
    /// It is idle: for these chains, as far as they are known, and at most until then.
    Others {
        /// Their names.
        chains: Vec<String>,
        /// The end of its window.
        until: Option<Timestamp>,
    },
}

impl Waiting<'_> {
    /// One of each chain, in the order of their names.
    pub fn slots(&self) -> Vec<SlotWait> {
        let mut chains: HashMap<&RunId, &str> = HashMap::new();
        chains.extend(self.runs.iter().map(|run| (&run.run_ref().id, run.run_ref().chain.as_str())));
        let offers = self.backlog.values().flatten().chain(self.state.beginning());
        chains.extend(offers.map(|offer| (&offer.run, offer.chain.as_str())));
        let mut slots: Vec<SlotWait> = self.backlog.keys().map(|chain| SlotWait { chain: chain.clone(), behind: Behind::ItsRun }).collect();
        for (offer, until, going) in self.rounds.waiting() {
            let mut names: Vec<String> = going.iter().filter_map(|run| chains.get(run)).map(|chain| (*chain).to_owned()).collect();
            names.sort();
            names.dedup();
            slots.push(SlotWait { chain: offer.chain.clone(), behind: Behind::Others { chains: names, until } });
        }
        slots.sort_by(|one, other| one.chain.cmp(&other.chain));
        slots.dedup_by(|later, first| later.chain == first.chain);
        slots
    }
}
