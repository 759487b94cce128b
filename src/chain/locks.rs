//! The locks of many chains in one loop: each is asked for, held and given back beside the others, and none waits for
//! another's engine. It starts no run: what may begin, and what may not, is answered ([`Answer`]).
//!
//! ```text
//! ask     -> Asking -> Ours (answered) -> Inside (a run goes on) -> Kept, or Leaving
//!                   -> Leaving (answered: refused)
//! Kept    -> Ours, when it is asked for again; Leaving, when it is lost, closed, or another lock is asked for
//! Leaving -> gone, when it is given back; or the next that was asked for meanwhile
//! ```

use std::cell::{Ref, RefCell};
use std::collections::VecDeque;
use std::ffi::CString;

use super::hold::{Hold, LockPlan, Recording, tell_doubt, tell_given_back};
use super::run::Run;
use super::{Driver, News, World};
use crate::clock::Moment;
use crate::event::RunRef;
use crate::lock::{LockEvent, Refusal};
use crate::names::RunId;
use crate::outcome::RunOutcome;

/// What came of asking for a lock.
#[derive(Debug)]
pub enum Answer {
    /// It is ours: the run may begin, or [`Locks::leave`] gives it back.
    Ours {
        /// The run it is for.
        run: RunRef,
        /// Whether that took a while: things may look different now.
        waited: bool,
    },
    /// It is not to be had.
    Refused {
        /// The run it was for.
        run: RunRef,
        /// Why.
        why: Unavailable,
    },
}

/// Why a lock was not to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unavailable {
    /// Somebody else holds it, in words: exit 75.
    Held(String),
    /// Its engine could not be asked, in words: exit 74.
    Unreachable(String),
    /// What the configuration says of it cannot be used, or is not trusted, in words: exit 78.
    Unusable(String),
}

impl Unavailable {
    /// In words.
    pub fn message(&self) -> &str {
        match self {
            Self::Held(message) | Self::Unreachable(message) | Self::Unusable(message) => message,
        }
    }
}

/// The locks of the chains that run, wait, or keep theirs.
#[derive(Default)]
pub struct Locks {
    all: Vec<ChainLock>,
    answers: VecDeque<Answer>,
}

struct ChainLock {
    chain: String,
    plan: LockPlan,
    hold: RefCell<Hold>,
    stage: Stage,
}

enum Stage {
    Asking { run: RunRef, waits: Option<String> },
    Ours(RunId),
    Inside(RunId),
    Kept,
    Leaving { until: Moment, given_back: bool, next: Option<Box<(LockPlan, RunRef)>> },
}

/// What is to become of an entry.
enum After {
    Stay,
    Gone,
    Next(Box<(LockPlan, RunRef)>),
}

impl Locks {
    /// Asks for the lock of a chain, for a run of it. A chain has one run at a time.
    pub fn ask(&mut self, plan: LockPlan, run: RunRef, world: &World<'_>) {
        let Some(at) = self.all.iter().position(|entry| entry.chain == run.chain) else { return self.open(plan, run) };
        let entry = &mut self.all[at];
        match &mut entry.stage {
            Stage::Kept => {
                entry.hear_kept(world);
                if matches!(entry.stage, Stage::Kept) && entry.plan == plan && entry.hold.get_mut().resume(&run) {
                    entry.stage = Stage::Ours(run.id.clone());
                    return self.answers.push_back(Answer::Ours { run, waited: false });
                }
                // What is given back and asked for again must not meet itself on the way.
                if matches!(entry.stage, Stage::Kept) {
                    entry.leave(world);
                }
                if let Stage::Leaving { next, .. } = &mut entry.stage {
                    *next = Some(Box::new((plan, run)));
                }
            }
            Stage::Leaving { next, .. } => *next = Some(Box::new((plan, run))),
            Stage::Asking { .. } | Stage::Ours(_) | Stage::Inside(_) => {
                let why = Unavailable::Held(format!("the chain {} has its lock already", run.chain));
                self.answers.push_back(Answer::Refused { run, why });
            }
        }
    }

    fn open(&mut self, plan: LockPlan, run: RunRef) {
        match Hold::open(&plan.settings) {
            Ok(mut hold) => {
                hold.contend(&run);
                let chain = run.chain.clone();
                self.all.push(ChainLock { chain, plan, hold: RefCell::new(hold), stage: Stage::Asking { run, waits: None } });
            }
            Err(error) => {
                let message = error.to_string();
                let why = if error.is_of_configuration() { Unavailable::Unusable(message) } else { Unavailable::Unreachable(message) };
                self.answers.push_back(Answer::Refused { run, why });
            }
        }
    }

    /// The next answer.
    pub fn answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    /// Gives up asking for the lock of this run, or gives it back unused.
    pub fn leave(&mut self, run: &RunId, world: &World<'_>) {
        self.answers.retain(|answer| match answer {
            Answer::Ours { run: of, .. } | Answer::Refused { run: of, .. } => of.id != *run,
        });
        for entry in &mut self.all {
            match &mut entry.stage {
                Stage::Asking { run: of, .. } if of.id == *run => entry.leave(world),
                Stage::Ours(of) if of == run => entry.leave(world),
                Stage::Leaving { next, .. } => drop(next.take_if(|next| next.1.id == *run)),
                Stage::Asking { .. } | Stage::Ours(_) | Stage::Inside(_) | Stage::Kept => {}
            }
        }
    }

    /// Gives back what is kept of the chains that are not `wanted` any more. What they hold just now, or ask for, is not kept
    /// after the run.
    pub fn keep_only(&mut self, wanted: impl Fn(&str, &LockPlan) -> bool, world: &World<'_>) {
        for entry in &mut self.all {
            let plan = match &mut entry.stage {
                Stage::Leaving { next: Some(next), .. } => &mut next.0,
                Stage::Leaving { next: None, .. } => continue,
                Stage::Asking { .. } | Stage::Ours(_) | Stage::Inside(_) | Stage::Kept => &mut entry.plan,
            };
            if wanted(&entry.chain, plan) {
                continue;
            }
            plan.keep = false;
            if matches!(entry.stage, Stage::Kept) {
                entry.leave(world);
            }
        }
    }

    /// Gives back what is kept. Whether there is nothing left to be given back.
    pub fn close(&mut self, world: &World<'_>) -> bool {
        self.keep_only(|_, _| false, world);
        self.all.is_empty()
    }

    /// Whether nothing is asked for, and nothing is on its way back.
    pub fn is_quiet(&self) -> bool {
        self.answers.is_empty() && self.all.iter().all(|entry| matches!(entry.stage, Stage::Kept | Stage::Inside(_)))
    }

    /// The runs that wait for a lock, and why.
    pub fn waiting(&self) -> impl Iterator<Item = (&RunRef, &str)> {
        self.all.iter().filter_map(|entry| match &entry.stage {
            Stage::Asking { run, waits } => Some((run, waits.as_deref().unwrap_or("its lock is asked for"))),
            Stage::Leaving { next: Some(next), .. } => Some((&next.1, "its lock is given back first")),
            Stage::Ours(_) | Stage::Inside(_) | Stage::Kept | Stage::Leaving { next: None, .. } => None,
        })
    }

    /// All of them, to be listened to.
    pub fn holds(&self) -> Vec<Ref<'_, Hold>> {
        self.all.iter().map(|entry| entry.hold.borrow()).collect()
    }

    /// When one is to be looked at again by time alone.
    pub fn wake_at(&self) -> Option<Moment> {
        let leaving = self.all.iter().filter_map(|entry| match &entry.stage {
            Stage::Leaving { until, .. } => Some(*until),
            Stage::Asking { .. } | Stage::Ours(_) | Stage::Inside(_) | Stage::Kept => None,
        });
        leaving.chain(self.all.iter().filter_map(|entry| entry.hold.borrow().wake_at())).min()
    }

    /// Hears all of them, and does to the runs what is said of their locks: after every wait, and before anything else.
    pub fn hear(&mut self, runs: &mut [Run], driver: &mut Driver<'_>) {
        let mut at = 0;
        while at < self.all.len() {
            match self.all[at].hear(runs, driver, &mut self.answers) {
                After::Stay => at += 1,
                After::Gone => drop(self.all.swap_remove(at)),
                After::Next(next) => {
                    self.all.swap_remove(at);
                    let (plan, run) = *next;
                    self.open(plan, run);
                }
            }
        }
    }

    /// Looks at the locks of runs of which something was heard.
    pub fn look(&self, runs: &[Run], news: &News) {
        for run in runs {
            if let Some(hold) = self.of_run(&run.run_ref().id) {
                hold.borrow_mut().look(run, news);
            }
        }
    }

    /// Writes down what runs now.
    pub fn note(&self, runs: &[Run]) {
        for run in runs {
            if let Some(hold) = self.of_run(&run.run_ref().id) {
                hold.borrow_mut().note(run);
            }
        }
    }

    /// A run begins, under its lock if that was asked for; the variable that tells its token.
    pub fn enter(&mut self, run: &RunId) -> Option<CString> {
        let entry = self.all.iter_mut().find(|entry| matches!(&entry.stage, Stage::Ours(of) if of == run))?;
        entry.stage = Stage::Inside(run.clone());
        entry.hold.get_mut().variable()
    }

    /// The lock that a run goes on under.
    pub fn of_run(&self, run: &RunId) -> Option<&RefCell<Hold>> {
        self.all.iter().find(|entry| matches!(&entry.stage, Stage::Inside(of) if of == run)).map(|entry| &entry.hold)
    }

    /// A run has ended: its lock is kept, or given back.
    pub fn ended(&mut self, run: &Run, world: &World<'_>) {
        let id = &run.run_ref().id;
        let Some(entry) = self.all.iter_mut().find(|entry| matches!(&entry.stage, Stage::Inside(of) if of == id)) else { return };
        let failed = run.outcome() != Some(&RunOutcome::Done);
        if entry.plan.keep && !(failed && entry.plan.release_on_error) && entry.hold.get_mut().may_start() {
            entry.stage = Stage::Kept;
        } else {
            entry.leave(world);
        }
    }
}

impl ChainLock {
    fn leave(&mut self, world: &World<'_>) {
        let hold = self.hold.get_mut();
        hold.let_go(world.family, world.clock.now());
        let until = world.clock.now() + hold.lock().give_back_limit();
        self.stage = Stage::Leaving { until, given_back: false, next: None };
    }

    fn hear(&mut self, runs: &mut [Run], driver: &mut Driver<'_>, answers: &mut VecDeque<Answer>) -> After {
        let events = self.hold.get_mut().hear();
        for event in events {
            match &self.stage {
                Stage::Asking { .. } => self.hear_asking(event, &driver.world, answers),
                Stage::Ours(id) | Stage::Inside(id) => {
                    let run = runs.iter_mut().find(|run| run.run_ref().id == *id);
                    let shown = self.shown();
                    // Before it begins nothing has to be ended: it starts nothing without the lock.
                    if let Some(run) = run {
                        under(Some(&self.hold), driver, |world| Hold::obey(&shown, event, run, world));
                    }
                }
                Stage::Kept => self.hear_between(event, &driver.world),
                Stage::Leaving { .. } => self.hear_leaving(event),
            }
        }
        let now = driver.world.clock.now();
        self.hold.get_mut().look_after_guard(driver.world.family, now);
        self.after(now)
    }

    fn after(&mut self, now: Moment) -> After {
        let Stage::Leaving { until, given_back, next } = &mut self.stage else { return After::Stay };
        if !(*given_back && self.hold.get_mut().is_alone()) && now < *until {
            return After::Stay;
        }
        let (given_back, next) = (*given_back, next.take());
        if !given_back {
            log::warn!("{} gave no answer when it was given back; it ends by itself", self.shown());
        }
        next.map_or(After::Gone, After::Next)
    }

    fn shown(&self) -> String {
        format!("chain {}: {}", self.chain, self.hold.borrow().lock().shown())
    }

    fn hear_asking(&mut self, event: LockEvent, world: &World<'_>, answers: &mut VecDeque<Answer>) {
        let shown = self.shown();
        let Stage::Asking { run, waits } = &mut self.stage else { return };
        match event {
            LockEvent::Acquired(token) => {
                log::debug!("{shown} is ours, token {token}");
                self.hold.get_mut().entered(world.family);
                answers.push_back(Answer::Ours { run: run.clone(), waited: waits.is_some() });
                self.stage = Stage::Ours(run.id.clone());
            }
            LockEvent::GaveUp(refusal) => {
                let (lock, now) = (self.hold.get_mut().lock(), world.clock.now());
                // What it may still get it gives back; an engine that does not answer is not waited for.
                let (why, until) = match refusal {
                    Refusal::Held(holder) => {
                        (Unavailable::Held(format!("{} is held{}", lock.shown(), holder.by())), Some(now + lock.give_back_limit()))
                    }
                    Refusal::Unreachable(why) => (Unavailable::Unreachable(why), None),
                };
                answers.push_back(Answer::Refused { run: run.clone(), why });
                self.stage = Stage::Leaving { until: until.unwrap_or(now), given_back: until.is_none(), next: None };
            }
            LockEvent::Waiting(holder) => {
                let by = holder.by();
                log::info!("{shown} is held{by}");
                *waits = Some(format!("its lock is held{by}"));
            }
            LockEvent::Unreachable(why) => {
                log::warn!("chain {}: {why}", self.chain);
                *waits = Some(why);
            }
            LockEvent::Doubt { .. } | LockEvent::Sure | LockEvent::Stop(_) | LockEvent::Kill(_) | LockEvent::GivenBack(_) => {}
        }
    }

    /// What becomes of a lock that is kept while nothing runs under it. One that is lost is asked for again.
    fn hear_between(&mut self, event: LockEvent, world: &World<'_>) {
        match event {
            LockEvent::Stop(why) | LockEvent::Kill(why) => {
                log::warn!("{} is lost between two runs: {why}", self.shown());
                self.leave(world);
            }
            LockEvent::Doubt { .. } | LockEvent::Sure => tell_doubt(&self.shown(), &event),
            LockEvent::Acquired(_) | LockEvent::Waiting(_) | LockEvent::Unreachable(_) => {}
            LockEvent::GaveUp(_) | LockEvent::GivenBack(_) => {}
        }
    }

    fn hear_kept(&mut self, world: &World<'_>) {
        for event in self.hold.get_mut().hear() {
            self.hear_between(event, world);
        }
    }

    fn hear_leaving(&mut self, event: LockEvent) {
        let LockEvent::GivenBack(result) = event else { return };
        tell_given_back(&self.shown(), result.as_deref());
        if let Stage::Leaving { given_back, .. } = &mut self.stage {
            *given_back = true;
        }
    }
}

/// Does something to a run in the world that its lock makes of it: what starts is written down beside the lock first.
pub fn under<T>(hold: Option<&RefCell<Hold>>, driver: &mut Driver<'_>, act: impl FnOnce(&mut World<'_>) -> T) -> T {
    let Some(hold) = hold else { return act(&mut driver.world) };
    let World { family, clock, reader, rng } = &mut driver.world;
    let mut reader = Recording::new(&mut **reader, hold);
    act(&mut World { family, clock: *clock, reader: &mut reader, rng })
}
