//! Drives a chain: the one loop of the program. It waits for a signal, a child or the next deadline, asks `step`
//! what that means, and does it.

pub mod attempt;
pub mod ears;
pub mod halt;
pub mod repeat;
pub mod setup;
pub mod step;

use std::ffi::CString;

use rand::RngExt;
use rand::rngs::SmallRng;

use crate::clock::{Clock, Moment};
use crate::config::keys::CHAIN_HOOK;
use crate::environment::variable;
use crate::event::{Event, Reader, RunRef};
use crate::hook::{self, HookRun, HookStart};
use crate::notify::inbox::{Inbox, leader_of};
use crate::outcome::{ExitKind, HaltReason, RunOutcome};
use crate::output::Capture;
use crate::process::Family;
use attempt::{Attempt, Kit, Progress};
use ears::{Ears, Heard};
use halt::HaltRun;
use setup::Setup;
use step::{Action, Chain, Input, Outcome, Rules, TaskRules};

/// How many letters of tasks are read before the rest of the world has its turn.
const LETTERS_AT_ONCE: usize = 100;

/// One run of a chain, while it goes on.
pub struct Run<'a> {
    /// The chain, its tasks and its plan.
    pub setup: &'a Setup,
    /// Which run it is.
    pub run: RunRef,
    /// Everything we have started.
    pub family: &'a Family,
    /// The clocks.
    pub clock: &'a dyn Clock,
    /// Signals, and whatever else wakes us.
    pub ears: &'a mut Ears,
    /// Who hears of events.
    pub reader: &'a mut dyn Reader,
    /// The random part of waits.
    pub rng: &'a mut SmallRng,
    /// RUNNER_CONFIG_CMD and its kin, the same for all runs.
    pub program_variables: &'a [CString],
}

/// The parts of a run that change.
struct Live {
    attempts: Vec<Attempt>,
    leaked: Vec<Capture>,
    inbox: Option<Inbox>,
    variables: Vec<CString>,
    began: Moment,
    started: u32,
    outcome: Option<RunOutcome>,
    end_told: bool,
}

impl Run<'_> {
    /// Runs the chain, from its first hook to its outcome, halt task included.
    pub fn drive(mut self) -> RunOutcome {
        let began = self.clock.now();
        let mut live = Live {
            attempts: Vec::new(),
            leaked: Vec::new(),
            inbox: None,
            variables: self.run_variables(),
            began,
            started: 0,
            outcome: None,
            end_told: false,
        };
        let tasks = self.setup.plan.places.len();
        self.reader.tell(&self.run, &Event::RunStarted { tasks });
        self.chain_hook(&mut live, &|run| hook::run_started(run, tasks));
        if tasks > 0 {
            self.open_inbox(&mut live);
        }
        let mut chain = self.new_chain(began);
        let mut actions = chain.step(Input::Begin, self.clock.now());
        loop {
            self.act(&mut chain, &mut live, actions);
            if let Some(outcome) = live.outcome {
                return outcome;
            }
            actions = self.hear(&mut chain, &mut live);
        }
    }

    fn new_chain(&self, now: Moment) -> Chain {
        let settings = &self.setup.chain;
        let rules = Rules {
            max_parallel: settings.max_parallel,
            retry_from: settings.retry_from,
            max_tries: settings.task.max_tries,
            retry_deadline: settings.retry_deadline,
            chain_max_time: settings.chain_max_time,
            halt_on_give_up: settings.halt_on_give_up,
        };
        let tasks = (0..self.setup.plan.places.len()).map(|place| &self.setup.task_at(place).settings);
        Chain::new(&self.setup.plan, rules, tasks.map(|task| TaskRules { max_tries: task.max_tries, backoff: task.backoff }), now)
    }

    fn run_variables(&self) -> Vec<CString> {
        let own = [
            variable(b"RUNNER_CHAIN", self.run.chain.as_bytes()),
            variable(b"RUNNER_RUN_ID", self.run.id.as_str().as_bytes()),
            variable(b"RUNNER_TRIGGER", b"boot"),
        ];
        self.program_variables.iter().cloned().chain(own.into_iter().flatten()).collect()
    }

    fn open_inbox(&self, live: &mut Live) {
        match Inbox::open(&self.run.id) {
            Ok(inbox) => {
                live.variables.extend(inbox.variable());
                live.inbox = Some(inbox);
            }
            Err(error) => log::warn!("tasks cannot tell how far they are, there is no socket for it: {error}"),
        }
    }

    /// Does what `step` said. What is done may itself be news for `step`, and so on until there is none.
    fn act(&mut self, chain: &mut Chain, live: &mut Live, actions: Vec<Action>) {
        let mut pending = std::collections::VecDeque::from(actions);
        while let Some(action) = pending.pop_front() {
            match action {
                Action::Start { task, try_num, max_tries } => {
                    live.started += 1;
                    let kit = kit(self.setup, &self.run, self.family, self.clock, live.began, &live.variables);
                    live.attempts.push(Attempt::begin(&kit, task, try_num, max_tries, self.reader));
                }
                // Told to the attempt that was just judged, see `advance`.
                Action::Final { .. } => {}
                Action::Sleep { task, wait } => {
                    self.reader.tell(&self.run, &Event::TaskSleeping { task: &self.setup.task_at(task).name, wait })
                }
                Action::Pause { wait, try_num } => {
                    let max_tries = self.setup.chain.task.max_tries.count();
                    self.reader.tell(&self.run, &Event::RunRetry { wait, try_num, max_tries });
                }
                Action::Cancel => {
                    let kit = kit(self.setup, &self.run, self.family, self.clock, live.began, &live.variables);
                    live.attempts.iter_mut().for_each(|attempt| attempt.cancel(&kit));
                }
                Action::KillNow => {
                    let kit = kit(self.setup, &self.run, self.family, self.clock, live.began, &live.variables);
                    live.attempts.iter_mut().for_each(|attempt| attempt.kill_now(&kit));
                }
                Action::Halt(reason, task) => {
                    if let step::Phase::Halting(outcome) = chain.phase() {
                        self.tell_end(live, outcome);
                    }
                    let failed = task.map(|task| self.setup.task_at(task).name.text());
                    self.halt(&live.variables, reason, failed);
                    pending.extend(chain.step(Input::HaltEnded, self.clock.now()));
                }
                Action::End(outcome) => {
                    self.tell_end(live, outcome);
                    live.outcome = Some(self.outcome(outcome));
                }
            }
        }
    }

    fn outcome(&self, outcome: Outcome) -> RunOutcome {
        let name = |place: usize| self.setup.task_at(place).name.clone();
        match outcome {
            Outcome::Done => RunOutcome::Done,
            Outcome::GaveUp(why, task) => RunOutcome::GaveUp { why, task: task.map(name) },
            Outcome::Halted(task) => RunOutcome::Halted { task: name(task) },
            Outcome::StoppedByTask(task) => RunOutcome::StoppedByTask { task: name(task) },
            Outcome::Signalled(signal) => RunOutcome::Signalled(signal),
        }
    }

    /// The run is over, but for the halt task, which may take the machine with it: everybody is told, once.
    fn tell_end(&mut self, live: &mut Live, outcome: Outcome) {
        if std::mem::replace(&mut live.end_told, true) {
            return;
        }
        let outcome = self.outcome(outcome);
        let duration = self.clock.now().since(live.began);
        let started = live.started;
        self.reader.tell(&self.run, &Event::RunEnded { outcome: &outcome, duration, started });
        self.chain_hook(live, &|run| hook::run_ended(run, &outcome, started, duration));
    }

    /// Waits for something to happen, and asks `step` what it means.
    fn hear(&mut self, chain: &mut Chain, live: &mut Live) -> Vec<Action> {
        let Live { attempts, leaked, inbox, variables, began, .. } = &mut *live;
        let kit = kit(self.setup, &self.run, self.family, self.clock, *began, variables);
        let animation = self.reader.wake_in().map(|wait| self.clock.now() + wait);
        let deadline =
            chain.wake_at().into_iter().chain(attempts.iter().filter_map(|attempt| attempt.wake_at(&kit))).chain(animation).min();
        let mut fds = Vec::with_capacity(2 * attempts.len() + 2);
        let ends: Vec<usize> = attempts
            .iter()
            .map(|attempt| {
                attempt.add_fds(&mut fds);
                fds.len()
            })
            .collect();
        fds.extend(inbox.iter().map(Inbox::fd));
        let leaked_from = fds.len();
        fds.extend(leaked.iter().flat_map(Capture::fds));
        let Heard { ready, stops } = self.ears.listen(&fds, deadline, self.family, self.clock);
        drop(fds);
        let is_ready = |attempt: usize| ready[attempt.checked_sub(1).map_or(0, |before| ends[before])..ends[attempt]].contains(&true);
        self.reader.wake();
        let mut actions = Vec::new();
        for signal in stops {
            self.reader.tell(&self.run, &Event::Stopping { signal });
            actions.extend(chain.step(Input::Signal(signal), self.clock.now()));
        }
        if ready[leaked_from..].contains(&true) {
            leaked.iter_mut().for_each(Capture::read);
            leaked.retain(Capture::is_open);
        }
        // Letters before endings: what a task said last belongs to it.
        if let Some(inbox) = inbox
            && ready[leaked_from - 1]
        {
            deliver(inbox, attempts, &kit, self.reader);
        }
        let now = self.clock.now();
        for (at, attempt) in attempts.iter_mut().enumerate() {
            if !is_ready(at) && attempt.wake_at(&kit).is_none_or(|wake| wake > now) {
                continue;
            }
            actions.extend(advance(attempt, chain, &kit, self.reader, self.rng));
        }
        for finished in attempts.extract_if(.., |attempt| attempt.is_finished()) {
            leaked.extend(finished.into_leaked_output());
        }
        actions.extend(chain.step(Input::Woke, self.clock.now()));
        actions
    }

    /// Runs the hook of the chain and waits for it: its start comes before the first task, its end before the halt
    /// task. A signal that comes meanwhile is kept for the run; a second one ends the hook.
    fn chain_hook(&mut self, live: &mut Live, message: &dyn Fn(&RunRef) -> serde_json::Value) {
        let Some(command) = &self.setup.chain.chain_hook else { return };
        let variables = &self.setup.variables;
        let own: Vec<CString> = variable(b"RUNNER_HOOK", b"chain").into_iter().collect();
        let start = HookStart {
            key: CHAIN_HOOK.info.name,
            command,
            message: &message(&self.run),
            env: &[&variables.block, &live.variables, &own],
            search: variables.search.as_deref(),
            max_time: self.setup.chain.hook_max_time,
            kill_after: self.setup.chain.task.kill_after,
        };
        let result =
            HookRun::start(&start, self.family, self.clock.now()).and_then(|hook| wait_for_hook(hook, self.ears, self.family, self.clock));
        if let Err(why) = result {
            self.reader.tell(&self.run, &Event::HookFailed { key: start.key, why: &why });
        }
    }

    /// Runs the halt task and waits for it. The first signal after its start is spared it, the second kills it.
    fn halt(&mut self, run_variables: &[CString], reason: HaltReason, failed_task: Option<&str>) {
        let file = self.setup.halt.path.to_string_lossy();
        let began = self.clock.now();
        let started = HaltRun::start(self.setup, run_variables, reason, failed_task, self.family, self.clock);
        let exit = match started {
            Err(why) => ExitKind::NotStarted(why),
            Ok(mut halt) => {
                self.reader.tell(&self.run, &Event::HaltStarted { file: &file, reason });
                let mut signals = 0;
                loop {
                    let now = self.clock.now();
                    if let Some(exit) = halt.advance(self.family, now) {
                        break exit;
                    }
                    let fds: Vec<_> = halt.process().fds().collect();
                    let heard = self.ears.listen(&fds, halt.wake_at(), self.family, self.clock);
                    drop(fds);
                    for signal in heard.stops {
                        signals += 1;
                        self.reader.tell(&self.run, &Event::Stopping { signal });
                        if signals > 1 {
                            halt.kill_now(self.family, self.clock.now());
                        }
                    }
                }
            }
        };
        let duration = self.clock.now().since(began);
        self.reader.tell(&self.run, &Event::HaltEnded { file: &file, exit: &exit, duration });
    }

    /// `--halt-after`: the last run is done, and the halt task runs all the same.
    pub fn halt_after_last(mut self) {
        let variables = self.run_variables();
        self.halt(&variables, HaltReason::AfterLast, None);
    }
}

/// Runs a hook to its end.
///
/// # Errors
/// How it failed, in words.
pub fn wait_for_hook(mut hook: HookRun, ears: &mut Ears, family: &Family, clock: &dyn Clock) -> Result<(), String> {
    loop {
        if let Some(result) = hook.advance(family, clock.now()) {
            return result;
        }
        let fds: Vec<_> = hook.process().fds().collect();
        let heard = ears.listen(&fds, hook.wake_at(), family, clock);
        drop(fds);
        ears.keep(&heard.stops);
        if ears.kept() > 1 {
            hook.kill_now(family, clock.now());
        }
    }
}

fn kit<'a>(
    setup: &'a Setup,
    run: &'a RunRef,
    family: &'a Family,
    clock: &'a dyn Clock,
    began: Moment,
    run_variables: &'a [CString],
) -> Kit<'a> {
    Kit { setup, run, family, clock, run_variables, run_deadline: began.after(setup.chain.chain_max_time) }
}

/// Looks what has become of a try, asks `step` what that means, and tells the try.
fn advance(attempt: &mut Attempt, chain: &mut Chain, kit: &Kit<'_>, reader: &mut dyn Reader, rng: &mut SmallRng) -> Vec<Action> {
    let (task, mut actions) = (attempt.place, Vec::new());
    while let Some(progress) = attempt.advance(kit, reader) {
        match progress {
            Progress::Judged(judged) => {
                let input = Input::Judged { task, verdict: judged.verdict, jitter: rng.random(), unkillable: judged.unkillable };
                let told = chain.step(input, kit.clock.now());
                attempt.conclude(kit, told.contains(&Action::Final { task }), reader);
                actions.extend(told);
            }
            Progress::Freed => {
                actions.extend(chain.step(Input::Freed { task }, kit.clock.now()));
                break;
            }
        }
    }
    actions
}

/// Hands letters to the tasks whose processes they came from. One that comes from elsewhere is dropped. There is a
/// limit to how many are read at once: a task that never stops talking must not keep us from the others.
fn deliver(inbox: &Inbox, attempts: &mut [Attempt], kit: &Kit<'_>, reader: &mut dyn Reader) {
    for letter in std::iter::from_fn(|| inbox.next_letter()).take(LETTERS_AT_ONCE) {
        let leaders: Vec<_> = attempts.iter().filter_map(|attempt| attempt.process().map(crate::process::Supervised::pid)).collect();
        let leader = leader_of(letter.sender, &leaders);
        let addressee =
            attempts.iter_mut().find(|attempt| leader.is_some() && attempt.process().map(crate::process::Supervised::pid) == leader);
        match addressee {
            Some(attempt) => attempt.hear(kit, &letter.messages, reader),
            // The empty letter is BARRIER=1: systemd-notify asks whether the one before has been read.
            None if letter.messages.is_empty() => {}
            None => log::debug!("a message from process {} is of no running task", letter.sender.as_raw_pid()),
        }
    }
}
