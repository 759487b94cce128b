//! What happens to a chain when something happens to a task: the table of the whole program. Decides only.
//!
//! Phases: Open, Draining(why), Cancelling(why), Pause(until), Halting, Ended(outcome).
//!
//! | verdict on a task | Open, `retry_from = start` | Open, `retry_from = failed` |
//! |---|---|---|
//! | OK, SKIP | start all that is ready; all done: Ended | same |
//! | RETRY, tries left | Draining, then Pause, then everything again | that task sleeps, the others go on |
//! | RETRY, none left | Draining, Halting if `halt_on_give_up`, gave up | same |
//! | HALT | Cancelling, Halting, halted | same |
//! | EXIT | Draining, stopped by a task, no halt task | same |
//! | chain limit | Cancelling, Halting if `halt_on_give_up`, gave up | same |
//! | lock lost | Cancelling, no halt task, lock lost | same |
//! | signal | Cancelling, no halt task, die of it | same |
//!
//! While Draining or Cancelling a later reason wins only if it is graver; the order of [`Why`] is that order.
//! A task is heard of twice: [`Input::Judged`] when its processes are gone, so that a HALT stops the others at once,
//! and [`Input::Freed`] when its hook has run, too, and its place may be taken.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use crate::clock::{Limit, Moment};
use crate::config::keys::RetryFrom;
use crate::config::value::Tries;
use crate::outcome::{GiveUp, HaltReason, Verdict};
use crate::retry::Backoff;
use crate::task::graph::{Dependents, Plan};

/// Where one task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// For dependencies or its stage.
    Waiting,
    /// For a free place.
    Ready,
    /// It has a place; its processes or its hooks run.
    Running,
    /// OK or skipped.
    Done,
    /// It has failed so often, and waits for the chain to begin again or to end.
    Failed(u32),
    /// It is tried again then (`retry_from = failed`).
    Sleeping(Moment),
    /// We ended it; no failure, and no try used up.
    Cancelled,
}

/// Why a chain stops starting tasks, the graver the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A task failed, and everything is tried again after this wait.
    Retry(Duration),
    /// A task failed for good.
    GiveUp(usize, GiveUp),
    /// A task ended the chain with one of its `stop_codes`.
    Exit(usize),
    /// `chain_max_time` passed.
    ChainLimit,
    /// A task asked for the halt task.
    Halt(usize),
    /// The lock that the run holds is lost.
    LockLost,
    /// We were told to stop by this signal.
    Signal(i32),
}

impl Why {
    fn rank(self) -> u8 {
        match self {
            Self::Retry(_) => 0,
            Self::GiveUp(..) => 1,
            Self::Exit(_) => 2,
            Self::ChainLimit => 3,
            Self::Halt(_) => 4,
            Self::LockLost => 5,
            Self::Signal(_) => 6,
        }
    }

    /// Whether running tasks are ended, or go on to their own end.
    fn cancels(self) -> bool {
        match self {
            Self::Retry(_) | Self::GiveUp(..) | Self::Exit(_) => false,
            Self::ChainLimit | Self::Halt(_) | Self::LockLost | Self::Signal(_) => true,
        }
    }
}

/// How a run ended, with tasks as places of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every task is done.
    Done,
    /// Not done; the task whose failure it was, if it was one's.
    GaveUp(GiveUp, Option<usize>),
    /// This task asked for the halt task.
    Halted(usize),
    /// This task ended the run with a stop code.
    StoppedByTask(usize),
    /// The lock it held was lost.
    LockLost,
    /// By this signal.
    Signalled(i32),
}

/// Where the run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Tasks are started.
    Open,
    /// Nothing new starts; running tasks go on to their own end.
    Draining(Why),
    /// Nothing new starts; running tasks are being ended.
    Cancelling(Why),
    /// Everything begins again then.
    Pause(Moment),
    /// The halt task runs; then the run ends so.
    Halting(Outcome),
    /// Over.
    Ended(Outcome),
}

/// What can happen to a chain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Input {
    /// It begins.
    Begin,
    /// The processes of a task are gone, and this is what that means. `jitter` is the random part of a wait, in
    /// `0.0..1.0`; `unkillable` says that a process of it survives KILL.
    Judged {
        /// The place of the task.
        task: usize,
        /// What its end means.
        verdict: Verdict,
        /// The random part of the wait, should there be one.
        jitter: f64,
        /// A process of it could not be ended.
        unkillable: bool,
    },
    /// The hook of a judged task has run, too.
    Freed {
        /// The place of the task.
        task: usize,
    },
    /// A deadline of [`Chain::wake_at`] may have passed.
    Woke,
    /// We were told to stop.
    Signal(i32),
    /// The lock is lost, or nobody can tell any more whether it is ours.
    LockLost,
    /// The halt task has ended.
    HaltEnded,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start a try of this task.
    Start {
        /// The place of the task.
        task: usize,
        /// Which try it is, from 1.
        try_num: u32,
        /// How many there are; never less than `try_num`.
        max_tries: u32,
    },
    /// A RETRY has been judged: there is no further try after it.
    Final {
        /// The place of the task.
        task: usize,
    },
    /// This task is tried again then.
    Sleep {
        /// The place of the task.
        task: usize,
        /// For how long.
        wait: Duration,
    },
    /// Everything is tried again after this wait.
    Pause {
        /// For how long.
        wait: Duration,
        /// The next try of the chain.
        try_num: u32,
    },
    /// End every running task: TERM, grace, KILL.
    Cancel,
    /// End every running task, hook and the halt task at once: KILL.
    KillNow,
    /// Run the halt task, for this reason, because of this task.
    Halt(HaltReason, Option<usize>),
    /// The run is over.
    End(Outcome),
}

/// What holds for the whole chain.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// `max_parallel`.
    pub max_parallel: usize,
    /// `retry_from`.
    pub retry_from: RetryFrom,
    /// `max_tries` of the chain.
    pub max_tries: Tries,
    /// `retry_deadline`.
    pub retry_deadline: Limit,
    /// `chain_max_time`.
    pub chain_max_time: Limit,
    /// `halt_on_give_up`.
    pub halt_on_give_up: bool,
}

/// What holds for one task.
#[derive(Debug, Clone, Copy)]
pub struct TaskRules {
    /// `max_tries` of the task.
    pub max_tries: Tries,
    /// The waits between its tries.
    pub backoff: Backoff,
}

#[derive(Debug)]
struct Task {
    rules: TaskRules,
    state: TaskState,
    /// Failures of the whole run.
    failures: u32,
    first_try: Option<Moment>,
    /// How many tasks it depends on, and how many of them are not done.
    needs: usize,
    unmet: usize,
    stage: usize,
}

/// A run of a chain: its phase, and where each task stands.
#[derive(Debug)]
pub struct Chain {
    rules: Rules,
    tasks: Vec<Task>,
    dependents: Dependents,
    phase: Phase,
    try_num: u32,
    began: Moment,
    ready: BinaryHeap<Reverse<usize>>,
    sleeping: BinaryHeap<Reverse<(Moment, usize)>>,
    /// Tasks that are not done, of each stage.
    stage_left: Vec<usize>,
    stage: usize,
    running: usize,
    last_failed: Option<usize>,
    signals: u32,
}

impl Chain {
    /// A run of `plan` that begins now. `task_rules[i]` are those of the task at place `i`.
    pub fn new(plan: &Plan, rules: Rules, task_rules: impl IntoIterator<Item = TaskRules>, now: Moment) -> Self {
        let tasks = plan.places.iter().zip(task_rules).map(|(place, rules)| Task {
            rules,
            state: TaskState::Waiting,
            failures: 0,
            first_try: None,
            needs: place.depends_on.len(),
            unmet: 0,
            stage: place.stage,
        });
        let mut chain = Self {
            rules,
            tasks: tasks.collect(),
            dependents: Dependents::of(plan.places.iter().map(|place| place.depends_on.as_slice())),
            phase: Phase::Open,
            try_num: 1,
            began: now,
            ready: BinaryHeap::new(),
            sleeping: BinaryHeap::new(),
            stage_left: Vec::new(),
            stage: 0,
            running: 0,
            last_failed: None,
            signals: 0,
        };
        chain.reset();
        chain
    }

    /// No task at all, only the halt task: the last of several runs was done.
    pub fn halt_only(&mut self, actions: &mut VecDeque<Action>) {
        self.halt(HaltReason::AfterLast, Outcome::Done, None, actions);
    }

    /// Where the run stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Where the task at this place stands.
    pub fn task_state(&self, task: usize) -> TaskState {
        self.tasks[task].state
    }

    /// How many tries of the chain there were, this one included.
    pub fn try_num(&self) -> u32 {
        self.try_num
    }

    /// The next moment at which time alone changes something.
    pub fn wake_at(&self) -> Option<Moment> {
        let limit = self.began.after(self.rules.chain_max_time);
        let own = match self.phase {
            Phase::Open => self.sleeping.peek().map(|Reverse((until, _))| *until),
            Phase::Pause(until) => Some(until),
            Phase::Draining(_) => None,
            Phase::Cancelling(_) | Phase::Halting(_) | Phase::Ended(_) => return None,
        };
        own.into_iter().chain(limit).min()
    }

    /// One step: what happened, and what is to be done, which comes behind the `actions` that wait.
    pub fn step(&mut self, input: Input, now: Moment, actions: &mut VecDeque<Action>) {
        match input {
            Input::Judged { task, verdict, jitter, unkillable } => self.judge(task, verdict, jitter, unkillable, now, actions),
            Input::Freed { task } => {
                debug_assert!(self.tasks[task].state != TaskState::Running, "a task is judged before it is freed");
                self.running -= 1;
                if self.tasks[task].state == TaskState::Done {
                    self.complete(task);
                }
                self.settle(now, actions);
            }
            Input::Begin | Input::Woke => self.wake(now, actions),
            Input::Signal(signal) => self.signal(signal, now, actions),
            Input::LockLost => {
                self.raise(Why::LockLost, actions);
                self.settle(now, actions);
            }
            Input::HaltEnded => {
                if let Phase::Halting(outcome) = self.phase {
                    self.end(outcome, actions);
                }
            }
        }
    }

    /// Everything waits again, as at the beginning of a try of the chain.
    fn reset(&mut self) {
        self.ready.clear();
        self.stage = 0;
        self.stage_left = vec![0; self.tasks.last().map_or(0, |last| last.stage + 1)];
        for (at, task) in self.tasks.iter_mut().enumerate() {
            task.unmet = task.needs;
            task.state = if task.unmet == 0 { TaskState::Ready } else { TaskState::Waiting };
            if task.unmet == 0 {
                self.ready.push(Reverse(at));
            }
            self.stage_left[task.stage] += 1;
        }
    }

    fn judge(&mut self, task: usize, verdict: Verdict, jitter: f64, unkillable: bool, now: Moment, actions: &mut VecDeque<Action>) {
        match verdict {
            Verdict::Ok | Verdict::Skip => self.tasks[task].state = TaskState::Done,
            Verdict::Retry => {
                self.last_failed = Some(task);
                self.tasks[task].failures += 1;
                self.tasks[task].state = TaskState::Failed(self.tasks[task].failures);
                self.fail(task, jitter, unkillable, now, actions);
            }
            Verdict::Halt => {
                self.tasks[task].state = TaskState::Cancelled;
                self.raise(Why::Halt(task), actions);
            }
            Verdict::Exit => {
                self.tasks[task].state = TaskState::Cancelled;
                self.raise(Why::Exit(task), actions);
            }
            Verdict::Cancel => self.tasks[task].state = TaskState::Cancelled,
        }
    }

    /// A task is done, and its hook has run: whoever waited for it, or for its stage, waits for one less.
    fn complete(&mut self, task: usize) {
        self.stage_left[self.tasks[task].stage] -= 1;
        for at in 0..self.dependents.of_task(task).len() {
            let dependent = self.dependents.of_task(task)[at];
            self.tasks[dependent].unmet -= 1;
            if self.tasks[dependent].unmet == 0 {
                self.make_ready(dependent);
            }
        }
    }

    /// A task has failed: is there another try, whose, and when?
    fn fail(&mut self, task: usize, jitter: f64, unkillable: bool, now: Moment, actions: &mut VecDeque<Action>) {
        let (failures, rules) = (self.tasks[task].failures, self.tasks[task].rules);
        let (tries, spent, since) = match self.rules.retry_from {
            RetryFrom::Start => {
                let own_spent = failures >= rules.max_tries.count();
                (self.try_num, own_spent || self.try_num >= self.rules.max_tries.count(), self.began)
            }
            RetryFrom::Failed => (failures, failures >= rules.max_tries.count(), self.tasks[task].first_try.unwrap_or(self.began)),
        };
        // What the others of this drain wait for counts as well: there is one pause for all.
        let wait = match self.phase {
            Phase::Draining(Why::Retry(known)) => known.max(rules.backoff.wait(tries, jitter)),
            Phase::Open | Phase::Draining(_) | Phase::Cancelling(_) | Phase::Pause(_) | Phase::Halting(_) | Phase::Ended(_) => {
                rules.backoff.wait(tries, jitter)
            }
        };
        let late = since.after(self.rules.retry_deadline).is_some_and(|deadline| now + wait > deadline);
        let give_up = if unkillable {
            Some(GiveUp::Unkillable)
        } else if spent {
            Some(GiveUp::Tries)
        } else {
            late.then_some(GiveUp::Deadline)
        };
        match (give_up, self.rules.retry_from, self.phase) {
            (Some(why), RetryFrom::Start | RetryFrom::Failed, _) => {
                actions.push_back(Action::Final { task });
                self.raise(Why::GiveUp(task, why), actions);
            }
            (None, RetryFrom::Start, _) => self.raise(Why::Retry(wait), actions),
            (None, RetryFrom::Failed, Phase::Open) => {
                self.tasks[task].state = TaskState::Sleeping(now + wait);
                self.sleeping.push(Reverse((now + wait, task)));
                actions.push_back(Action::Sleep { task, wait });
            }
            (
                None,
                RetryFrom::Failed,
                Phase::Draining(_) | Phase::Cancelling(_) | Phase::Pause(_) | Phase::Halting(_) | Phase::Ended(_),
            ) => {}
        }
    }

    fn make_ready(&mut self, task: usize) {
        self.tasks[task].state = TaskState::Ready;
        self.ready.push(Reverse(task));
    }

    /// There is a reason to start nothing more. It counts if it is graver than the one there is.
    fn raise(&mut self, why: Why, actions: &mut VecDeque<Action>) {
        let graver = match self.phase {
            Phase::Open | Phase::Pause(_) => why,
            // Several failures in one drain are one try; `fail` has made this pause the longest of theirs.
            Phase::Draining(Why::Retry(_)) => why,
            Phase::Draining(known) | Phase::Cancelling(known) => match (known, why) {
                // The last that failed is named, unless a process of the first one cannot be ended.
                (Why::GiveUp(_, GiveUp::Tries | GiveUp::Deadline), Why::GiveUp(..)) => why,
                (known, why) if why.rank() > known.rank() => why,
                (known, _) => known,
            },
            Phase::Halting(_) | Phase::Ended(_) => return,
        };
        for Reverse((_, task)) in self.sleeping.drain() {
            self.tasks[task].state = TaskState::Cancelled;
        }
        let cancelling = matches!(self.phase, Phase::Cancelling(_));
        self.phase = if cancelling || graver.cancels() { Phase::Cancelling(graver) } else { Phase::Draining(graver) };
        if graver.cancels() && !cancelling {
            actions.push_back(Action::Cancel);
        }
    }

    /// After a place became free, or a reason to stop came while none was taken.
    fn settle(&mut self, now: Moment, actions: &mut VecDeque<Action>) {
        match self.phase {
            Phase::Open => self.advance(now, actions),
            Phase::Draining(why) | Phase::Cancelling(why) if self.running == 0 => self.conclude(why, now, actions),
            Phase::Draining(_) | Phase::Cancelling(_) | Phase::Pause(_) | Phase::Halting(_) | Phase::Ended(_) => {}
        }
    }

    /// Starts what is ready, in order, while there are free places; a stage begins when the one before it is done.
    fn advance(&mut self, now: Moment, actions: &mut VecDeque<Action>) {
        while self.stage_left.get(self.stage) == Some(&0) {
            self.stage += 1;
        }
        if self.stage >= self.stage_left.len() && self.running == 0 {
            return self.end(Outcome::Done, actions);
        }
        while self.running < self.rules.max_parallel {
            let Some(Reverse(task)) = self.ready.peek().copied() else { break };
            if self.tasks[task].stage > self.stage {
                break;
            }
            self.ready.pop();
            if self.is_too_late_for(task, now) {
                // It woke in time, and no place was free then.
                self.tasks[task].state = TaskState::Failed(self.tasks[task].failures);
                self.raise(Why::GiveUp(task, GiveUp::Deadline), actions);
                return self.settle(now, actions);
            }
            self.running += 1;
            self.tasks[task].state = TaskState::Running;
            self.tasks[task].first_try.get_or_insert(now);
            let (try_num, max_tries) = match self.rules.retry_from {
                RetryFrom::Start => (self.try_num, self.rules.max_tries.count()),
                RetryFrom::Failed => (self.tasks[task].failures + 1, self.tasks[task].rules.max_tries.count()),
            };
            actions.push_back(Action::Start { task, try_num, max_tries });
        }
    }

    /// Whether a further try of this task alone would begin after `retry_deadline`.
    fn is_too_late_for(&self, task: usize, now: Moment) -> bool {
        let Task { failures, first_try, .. } = self.tasks[task];
        let since = match self.rules.retry_from {
            RetryFrom::Start => return false,
            RetryFrom::Failed => first_try.filter(|_| failures > 0),
        };
        since.and_then(|since| since.after(self.rules.retry_deadline)).is_some_and(|deadline| now > deadline)
    }

    /// The last running task is gone: what the reason to stop leads to.
    fn conclude(&mut self, why: Why, now: Moment, actions: &mut VecDeque<Action>) {
        match why {
            Why::Retry(wait) => {
                // The drain took its time: look at the deadline once more.
                if self.began.after(self.rules.retry_deadline).is_some_and(|deadline| now + wait > deadline) {
                    return self.give_up(GiveUp::Deadline, self.last_failed, HaltReason::GaveUp, actions);
                }
                self.phase = Phase::Pause(now + wait);
                actions.push_back(Action::Pause { wait, try_num: self.try_num + 1 });
            }
            Why::GiveUp(task, why) => self.give_up(why, Some(task), HaltReason::GaveUp, actions),
            Why::Exit(task) => self.end(Outcome::StoppedByTask(task), actions),
            Why::ChainLimit => self.give_up(GiveUp::ChainLimit, None, HaltReason::ChainLimit, actions),
            Why::Halt(task) => self.halt(HaltReason::Task, Outcome::Halted(task), Some(task), actions),
            Why::LockLost => self.end(Outcome::LockLost, actions),
            Why::Signal(signal) => self.end(Outcome::Signalled(signal), actions),
        }
    }

    fn give_up(&mut self, why: GiveUp, task: Option<usize>, reason: HaltReason, actions: &mut VecDeque<Action>) {
        let outcome = Outcome::GaveUp(why, task);
        if self.rules.halt_on_give_up { self.halt(reason, outcome, task, actions) } else { self.end(outcome, actions) }
    }

    fn halt(&mut self, reason: HaltReason, outcome: Outcome, task: Option<usize>, actions: &mut VecDeque<Action>) {
        self.phase = Phase::Halting(outcome);
        actions.push_back(Action::Halt(reason, task));
    }

    fn end(&mut self, outcome: Outcome, actions: &mut VecDeque<Action>) {
        self.phase = Phase::Ended(outcome);
        actions.push_back(Action::End(outcome));
    }

    fn wake(&mut self, now: Moment, actions: &mut VecDeque<Action>) {
        let over = self.began.after(self.rules.chain_max_time).is_some_and(|limit| now >= limit);
        match self.phase {
            Phase::Open | Phase::Draining(_) | Phase::Pause(_) if over => {
                self.raise(Why::ChainLimit, actions);
                self.settle(now, actions);
            }
            Phase::Pause(until) if now >= until => {
                self.phase = Phase::Open;
                self.try_num += 1;
                self.reset();
                self.advance(now, actions);
            }
            Phase::Open => {
                while let Some(Reverse((until, task))) = self.sleeping.peek().copied() {
                    if until > now {
                        break;
                    }
                    self.sleeping.pop();
                    self.make_ready(task);
                }
                self.advance(now, actions);
            }
            Phase::Draining(_) | Phase::Cancelling(_) | Phase::Pause(_) | Phase::Halting(_) | Phase::Ended(_) => {}
        }
    }

    /// The first signal cancels, the second kills. A halt task is spared the first: it may have powered the
    /// machine off, and then that is where the signal comes from.
    fn signal(&mut self, signal: i32, now: Moment, actions: &mut VecDeque<Action>) {
        self.signals += 1;
        if self.signals > 1 && !matches!(self.phase, Phase::Ended(_)) {
            actions.push_back(Action::KillNow);
        }
        if !matches!(self.phase, Phase::Halting(_) | Phase::Ended(_)) {
            self.raise(Why::Signal(signal), actions);
            self.settle(now, actions);
        }
    }
}

#[cfg(test)]
mod tests;
