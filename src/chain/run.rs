//! One run of a chain, from its first hook to its outcome, halt task included. It never waits: the loop in `chain`
//! does, for all runs together, and calls [`Run::advance`] when something has happened.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::CString;
use std::rc::Rc;

use rand::RngExt;
use rustix::event::PollFd;
use rustix::net::SocketAddrUnix;

use super::attempt::{Attempt, Kit, Places, Progress};
use super::ears::readable;
use super::halt::HaltRun;
use super::letters::deliver;
use super::setup::Setup;
use super::step::{Action, Chain, Input, Outcome, Phase, Rules, TaskRules};
use super::{News, World};
use crate::clock::Moment;
use crate::config::keys::CHAIN_HOOK;
use crate::environment::{Block, variable};
use crate::event::{Closing, ClosingPart, Event, RunRef, StoppedBy};
use crate::hook::{self, HookRun, HookStart};
use crate::names::TaskName;
use crate::notify::asking::Said;
use crate::notify::inbox::{Inbox, Socket};
use crate::opinion::Opinions;
use crate::outcome::{ExitKind, HaltReason, RunOutcome};
use crate::output::Capture;

/// The signal that a word on its socket stands for.
const SIGTERM: i32 = 15;

/// One run of a chain.
pub struct Run {
    setup: Rc<Setup>,
    run: RunRef,
    chain: Chain,
    variables: Block,
    began: Moment,
    attempts: Vec<Attempt>,
    leaked: Vec<Capture>,
    inbox: Option<Inbox>,
    /// What becomes its inbox.
    socket: Option<Socket>,
    /// What `step` said and is not done yet: it waits while something runs aside.
    pending: VecDeque<Action>,
    aside: Option<Aside>,
    /// Signals to stop that came while something ran aside.
    kept: Vec<i32>,
    started: u32,
    opinions: Opinions,
    end_told: bool,
    outcome: Option<RunOutcome>,
    /// It was told to stop, by whatever.
    stopping: bool,
    /// Those who told it on its socket, and wait until it is over.
    stoppers: Vec<SocketAddrUnix>,
    /// Where its own descriptors (inbox, pipes that were left open) stand among all that were listened to.
    listened: Cell<Places>,
}

/// What runs while no task does.
enum Aside {
    /// The chain's hook, before the first task.
    StartHook(HookRun),
    /// The chain's hook, when the run is over but for the halt task.
    EndHook(HookRun),
    /// The halt task, since then.
    Halt(HaltRun, Moment),
}

impl Run {
    /// Begins a run: its hook first, if there is one. `program_variables` are RUNNER_CONFIG_CMD and its kin.
    pub fn begin(setup: Rc<Setup>, run: RunRef, program_variables: &[CString], world: &mut World<'_>) -> Self {
        Self::begin_with(None, setup, run, program_variables.to_vec(), world)
    }

    /// The same where the socket of its inbox may have been made before.
    pub fn begin_with(
        socket: Option<Socket>,
        setup: Rc<Setup>,
        run: RunRef,
        program_variables: Vec<CString>,
        world: &mut World<'_>,
    ) -> Self {
        let mut this = Self { socket, ..Self::new(setup, run, program_variables, world.clock.now()) };
        let tasks = this.setup.plan.places.len();
        world.reader.tell(&this.run, &Event::RunStarted { tasks });
        match this.start_hook(&|run| hook::run_started(run, tasks), world) {
            Some(hook) => this.aside = Some(Aside::StartHook(hook)),
            None => this.begin_tasks(world),
        }
        this
    }

    /// Begins with the halt task and has nothing else: `--halt-after`, when the last run is done.
    pub fn begin_halt(setup: Rc<Setup>, run: RunRef, program_variables: &[CString], world: &mut World<'_>) -> Self {
        let mut this = Self::new(setup, run, program_variables.to_vec(), world.clock.now());
        this.end_told = true;
        this.open_inbox();
        this.chain.halt_only(&mut this.pending);
        this.act(world);
        this
    }

    fn new(setup: Rc<Setup>, run: RunRef, program_variables: Vec<CString>, began: Moment) -> Self {
        Self {
            chain: new_chain(&setup, began),
            variables: run_variables(&run, program_variables),
            setup,
            run,
            began,
            attempts: Vec::new(),
            leaked: Vec::new(),
            inbox: None,
            socket: None,
            pending: VecDeque::new(),
            aside: None,
            kept: Vec::new(),
            started: 0,
            opinions: Opinions::default(),
            end_told: false,
            outcome: None,
            stopping: false,
            stoppers: Vec::new(),
            listened: Cell::default(),
        }
    }

    /// Which run it is.
    pub fn run_ref(&self) -> &RunRef {
        &self.run
    }

    /// The chain it runs.
    pub fn setup(&self) -> &Rc<Setup> {
        &self.setup
    }

    /// How it ended, once it has.
    pub fn outcome(&self) -> Option<&RunOutcome> {
        self.outcome.as_ref()
    }

    /// Whether it is certain how it ends: only hooks and the halt task may still run.
    pub fn is_decided(&self) -> bool {
        match self.chain.phase() {
            Phase::Halting(_) | Phase::Ended(_) => true,
            Phase::Open | Phase::Draining(_) | Phase::Cancelling(_) | Phase::Pause(_) => false,
        }
    }

    /// Whether something was heard of one of its tasks.
    pub fn has_news(&self, news: &News) -> bool {
        self.attempts.iter().any(|attempt| attempt.has_news(&news.ready))
    }

    /// Whether it was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Signals to stop that came too late to change its outcome; they are meant for whoever goes on.
    pub fn unheard(&self) -> &[i32] {
        &self.kept
    }

    /// Adds the descriptors that become readable when something has happened, and remembers where they stand.
    pub fn add_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        match &self.aside {
            Some(Aside::StartHook(hook) | Aside::EndHook(hook)) => fds.extend(hook.process().fds().map(readable)),
            Some(Aside::Halt(halt, _)) => fds.extend(halt.process().fds().map(readable)),
            None => {}
        }
        for attempt in &self.attempts {
            attempt.add_fds(fds);
        }
        let begin = fds.len();
        fds.extend(self.inbox.iter().map(|inbox| readable(inbox.fd())));
        fds.extend(self.leaked.iter().flat_map(Capture::fds).map(readable));
        self.listened.set(Places { begin, end: fds.len() });
    }

    /// The next moment at which time alone changes something.
    pub fn wake_at(&self) -> Option<Moment> {
        let aside = match &self.aside {
            Some(Aside::StartHook(hook) | Aside::EndHook(hook)) => return hook.wake_at(),
            Some(Aside::Halt(halt, _)) => return halt.wake_at(),
            None => self.chain.wake_at(),
        };
        self.attempts.iter().filter_map(|attempt| attempt.wake_at(&self.setup)).chain(aside).min()
    }

    /// It is to stop. The first signal ends its tasks in good time, the second at once. Hooks and the halt task, which
    /// may be where the signal comes from, are spared the first.
    pub fn stop(&mut self, signal: i32, by: &StoppedBy, world: &mut World<'_>) {
        world.reader.tell(&self.run, &Event::Stopping { signal, by, again: self.stopping });
        self.stopping = true;
        let now = world.clock.now();
        if self.aside.is_some() {
            self.kept.push(signal);
            match &mut self.aside {
                Some(Aside::StartHook(hook) | Aside::EndHook(hook)) if self.kept.len() > 1 => hook.kill_now(world.family, now),
                Some(Aside::Halt(halt, _)) if self.kept.len() > 1 => halt.kill_now(world.family, now),
                Some(Aside::StartHook(_) | Aside::EndHook(_) | Aside::Halt(..)) | None => {}
            }
            return;
        }
        self.chain.step(Input::Signal(signal), now, &mut self.pending);
        self.act(world);
    }

    /// Somebody who has the right to it wants this run to end: as by TERM.
    fn obey(&mut self, asker: SocketAddrUnix, world: &mut World<'_>) {
        self.answer(&asker, &Said::Heard(self.run.id.as_str().to_owned()));
        self.stoppers.push(asker);
        self.stop(SIGTERM, &StoppedBy::Asked, world);
    }

    fn answer(&self, asker: &SocketAddrUnix, said: &Said) {
        if let Some(inbox) = &self.inbox {
            inbox.answer(asker, said.text().as_bytes());
        }
    }

    /// It is over: those who wait for that are told.
    fn end(&mut self, outcome: RunOutcome) {
        let said = Said::Ended(self.run.id.as_str().to_owned(), outcome.word().to_owned());
        self.stoppers.iter().for_each(|asker| self.answer(asker, &said));
        // Whoever asks is not to wait for one that has nothing to say any more.
        self.inbox = None;
        self.outcome = Some(outcome);
    }

    /// The lock that it runs under is lost, or may be: its tasks are ended before another can own it. `at_once`: another
    /// may own it already, there is no grace.
    pub fn lose_lock(&mut self, at_once: bool, world: &mut World<'_>) {
        self.chain.step(Input::LockLost, world.clock.now(), &mut self.pending);
        self.act(world);
        if at_once {
            self.for_attempts(world, Attempt::kill_now);
        }
    }

    /// The tasks whose processes run: the leader, the task, the try.
    pub fn processes(&self) -> impl Iterator<Item = (i32, &TaskName, u32)> {
        self.attempts.iter().filter_map(|attempt| {
            let pid = attempt.process()?.pid().as_raw_pid();
            Some((pid, &self.setup.task_at(attempt.place).name, attempt.try_num))
        })
    }

    /// Looks what has happened, asks `step` what it means, and does it.
    pub fn advance(&mut self, news: &News, world: &mut World<'_>) {
        let now = news.now;
        let own_ready = self.listened.get().are_ready(&news.ready);
        if !self.leaked.is_empty() && own_ready {
            self.leaked.iter_mut().for_each(Capture::read);
            self.leaked.retain(Capture::is_open);
        }
        self.advance_aside(now, world);
        let kit = Kit {
            setup: &self.setup,
            run: &self.run,
            family: world.family,
            clock: world.clock,
            now,
            run_variables: &self.variables,
            run_deadline: self.deadline(),
        };
        // Letters before endings: what a task said last belongs to it.
        let mut stops = Vec::new();
        if let Some(inbox) = &self.inbox
            && own_ready
        {
            let closing = self.closing(&kit);
            stops = deliver(inbox, &mut self.attempts, &kit, closing.as_ref(), world.reader);
        }
        let mut finished = false;
        for attempt in &mut self.attempts {
            if attempt.has_news(&news.ready) || attempt.wake_at(kit.setup).is_some_and(|wake| wake <= now) {
                advance_attempt(attempt, &mut self.chain, &kit, &mut self.pending, world);
                finished |= attempt.is_finished();
            }
        }
        if finished {
            for gone in self.attempts.extract_if(.., |attempt| attempt.is_finished()) {
                self.opinions.hear(gone.place, gone.said());
                self.leaked.extend(gone.into_leaked_output());
            }
        }
        for asker in stops {
            self.obey(asker, world);
        }
        if self.aside.is_none() && self.outcome.is_none() {
            self.chain.step(Input::Woke, now, &mut self.pending);
        }
        self.act(world);
    }

    /// What of it runs since its end was told, and in which process.
    pub fn closing_part(&self) -> Option<(ClosingPart, i32)> {
        let (what, process) = match self.aside.as_ref()? {
            Aside::StartHook(_) => return None,
            Aside::EndHook(hook) => (ClosingPart::ChainHook, hook.process()),
            Aside::Halt(halt, _) => (ClosingPart::HaltTask, halt.process()),
        };
        Some((what, process.pid().as_raw_pid()))
    }

    /// The same with what else is known of it.
    fn closing(&self, kit: &Kit<'_>) -> Option<Closing> {
        let (what, pid) = self.closing_part()?;
        let outcome = match self.chain.phase() {
            Phase::Halting(outcome) | Phase::Ended(outcome) => self.outcome_of(outcome),
            Phase::Open | Phase::Draining(_) | Phase::Cancelling(_) | Phase::Pause(_) => return None,
        };
        let wall = kit.clock.wall();
        let began = wall.checked_sub(kit.now.since(self.began)).unwrap_or(wall);
        Some(Closing { outcome, began, what, pid })
    }

    fn deadline(&self) -> Option<Moment> {
        self.began.after(self.setup.chain.chain_max_time)
    }

    fn advance_aside(&mut self, now: Moment, world: &mut World<'_>) {
        match self.aside.take() {
            None => {}
            Some(Aside::StartHook(mut hook)) => match hook.advance(world.family, now) {
                None => self.aside = Some(Aside::StartHook(hook)),
                Some(result) => {
                    self.tell_hook(result, world);
                    self.begin_tasks(world);
                }
            },
            Some(Aside::EndHook(mut hook)) => match hook.advance(world.family, now) {
                None => self.aside = Some(Aside::EndHook(hook)),
                Some(result) => self.tell_hook(result, world),
            },
            Some(Aside::Halt(mut halt, began)) => match halt.advance(world.family, now) {
                None => self.aside = Some(Aside::Halt(halt, began)),
                Some(exit) => self.halt_ended(&exit, began, world),
            },
        }
    }

    fn tell_hook(&self, result: Result<(), String>, world: &mut World<'_>) {
        if let Err(why) = result {
            world.reader.tell(&self.run, &Event::HookFailed { key: CHAIN_HOOK.info.name, why: &why });
        }
    }

    /// The hook has run: the tasks begin, unless we were told to stop meanwhile.
    fn begin_tasks(&mut self, world: &mut World<'_>) {
        if !self.setup.plan.places.is_empty() {
            self.open_inbox();
        }
        let now = world.clock.now();
        for signal in std::mem::take(&mut self.kept) {
            self.chain.step(Input::Signal(signal), now, &mut self.pending);
        }
        self.chain.step(Input::Begin, now, &mut self.pending);
        self.act(world);
    }

    fn open_inbox(&mut self) {
        let opened = match self.socket.take() {
            Some(socket) => Inbox::at(socket, &self.run.id),
            None => Inbox::open(&self.run.id),
        };
        match opened {
            Ok(inbox) => {
                self.variables.extend(inbox.variable());
                self.inbox = Some(inbox);
            }
            Err(error) => log::warn!("tasks cannot tell how far they are, there is no socket for it: {error}"),
        }
    }

    /// Does what `step` said, until something runs aside. What is done may itself be news for `step`.
    fn act(&mut self, world: &mut World<'_>) {
        while self.aside.is_none()
            && let Some(action) = self.pending.pop_front()
        {
            match action {
                Action::Start { task, try_num, max_tries } => self.start(task, try_num, max_tries, world),
                // Told to the attempt that was just judged, see `advance_attempt`.
                Action::Final { .. } => {}
                Action::Sleep { task, wait } => {
                    world.reader.tell(&self.run, &Event::TaskSleeping { task: &self.setup.task_at(task).name, wait });
                }
                Action::Pause { wait, try_num } => {
                    let max_tries = self.setup.chain.task.max_tries.count();
                    world.reader.tell(&self.run, &Event::RunRetry { wait, try_num, max_tries });
                }
                Action::Cancel => self.for_attempts(world, Attempt::cancel),
                Action::KillNow => self.for_attempts(world, Attempt::kill_now),
                Action::Halt(reason, task) => match (self.end_told, self.chain.phase()) {
                    (false, Phase::Halting(outcome)) => {
                        self.pending.push_front(action);
                        self.tell_end(outcome, world);
                    }
                    (true | false, _) => self.halt(reason, task, world),
                },
                Action::End(outcome) if self.end_told => self.end(self.outcome_of(outcome)),
                Action::End(outcome) => {
                    self.pending.push_front(action);
                    self.tell_end(outcome, world);
                }
            }
        }
    }

    fn start(&mut self, task: usize, try_num: u32, max_tries: u32, world: &mut World<'_>) {
        self.started += 1;
        let deadline = self.deadline();
        let Self { setup, run, variables, attempts, .. } = self;
        let kit = Kit {
            setup,
            run,
            family: world.family,
            clock: world.clock,
            now: world.clock.now(),
            run_variables: variables,
            run_deadline: deadline,
        };
        attempts.push(Attempt::begin(&kit, task, try_num, max_tries, world.reader));
    }

    fn for_attempts(&mut self, world: &mut World<'_>, act: fn(&mut Attempt, &Kit<'_>)) {
        let deadline = self.deadline();
        let Self { setup, run, variables, attempts, .. } = self;
        let kit = Kit {
            setup,
            run,
            family: world.family,
            clock: world.clock,
            now: world.clock.now(),
            run_variables: variables,
            run_deadline: deadline,
        };
        attempts.iter_mut().for_each(|attempt| act(attempt, &kit));
    }

    fn outcome_of(&self, outcome: Outcome) -> RunOutcome {
        let name = |place: usize| self.setup.task_at(place).name.clone();
        match outcome {
            Outcome::Done => RunOutcome::Done,
            Outcome::GaveUp(why, task) => RunOutcome::GaveUp { why, task: task.map(name) },
            Outcome::Halted(task) => RunOutcome::Halted { task: name(task) },
            Outcome::StoppedByTask(task) => RunOutcome::StoppedByTask { task: name(task) },
            Outcome::LockLost => RunOutcome::LockLost,
            Outcome::Signalled(signal) => RunOutcome::Signalled(signal),
        }
    }

    /// The run is over, but for the halt task, which may take the machine with it: everybody is told, once.
    fn tell_end(&mut self, outcome: Outcome, world: &mut World<'_>) {
        self.end_told = true;
        let outcome = self.outcome_of(outcome);
        let duration = world.clock.now().since(self.began);
        let said = self.opinions.gravest(|place| self.setup.task_at(place).name.clone());
        let started = self.started;
        world.reader.tell(&self.run, &Event::RunEnded { outcome: &outcome, duration, started, said: said.as_ref() });
        let opinion = said.map(|said| said.opinion);
        let hook = self.start_hook(&|run| hook::run_ended(run, &outcome, started, duration, opinion), world);
        self.aside = hook.map(Aside::EndHook);
    }

    /// Starts the hook of the chain, if it has one: its start comes before the first task, its end before the halt task.
    fn start_hook(&self, message: &dyn Fn(&RunRef) -> serde_json::Value, world: &mut World<'_>) -> Option<HookRun> {
        let command = self.setup.chain.chain_hook.as_ref()?;
        let variables = &self.setup.variables;
        let own: Block = variable(b"RUNNER_HOOK", b"chain").into_iter().collect();
        let start = HookStart {
            key: CHAIN_HOOK.info.name,
            command,
            message: &message(&self.run),
            env: &[&variables.block, &self.variables, &own],
            search: variables.search.as_deref(),
            max_time: self.setup.chain.hook_max_time,
            kill_after: self.setup.chain.task.kill_after,
        };
        match HookRun::start(&start, world.family, world.clock.now()) {
            Ok(hook) => Some(hook),
            Err(why) => {
                self.tell_hook(Err(why), world);
                None
            }
        }
    }

    fn halt(&mut self, reason: HaltReason, failed_task: Option<usize>, world: &mut World<'_>) {
        let began = world.clock.now();
        let Some(halt) = &self.setup.halt else {
            // A chain without a halt task: there is nothing to run.
            self.chain.step(Input::HaltEnded, began, &mut self.pending);
            return;
        };
        let failed_task = failed_task.map(|task| self.setup.task_at(task).name.text());
        match HaltRun::start(halt, &self.setup, &self.variables, (reason, failed_task), world) {
            Err(why) => self.halt_ended(&ExitKind::NotStarted(why), began, world),
            Ok(running) => {
                let file = halt.path.to_string_lossy();
                world.reader.tell(&self.run, &Event::HaltStarted { file: &file, reason });
                self.aside = Some(Aside::Halt(running, began));
            }
        }
    }

    fn halt_ended(&mut self, exit: &ExitKind, began: Moment, world: &mut World<'_>) {
        let now = world.clock.now();
        if let Some(halt) = &self.setup.halt {
            let file = halt.path.to_string_lossy();
            world.reader.tell(&self.run, &Event::HaltEnded { file: &file, exit, duration: now.since(began) });
        }
        self.chain.step(Input::HaltEnded, now, &mut self.pending);
    }
}

fn new_chain(setup: &Setup, now: Moment) -> Chain {
    let settings = &setup.chain;
    let rules = Rules {
        max_parallel: settings.max_parallel,
        retry_from: settings.retry_from,
        max_tries: settings.task.max_tries,
        retry_deadline: settings.retry_deadline,
        chain_max_time: settings.chain_max_time,
        halt_on_give_up: settings.halt_on_give_up,
    };
    let tasks = (0..setup.plan.places.len()).map(|place| &setup.task_at(place).settings);
    Chain::new(&setup.plan, rules, tasks.map(|task| TaskRules { max_tries: task.max_tries, backoff: task.backoff }), now)
}

fn run_variables(run: &RunRef, program_variables: Vec<CString>) -> Block {
    let own = [
        variable(b"RUNNER_CHAIN", run.chain.as_bytes()),
        variable(b"RUNNER_RUN_ID", run.id.as_str().as_bytes()),
        variable(b"RUNNER_TRIGGER", run.trigger.kind.word().as_bytes()),
        run.trigger.scheduled_text().and_then(|at| variable(b"RUNNER_SCHEDULED_AT", at.as_bytes())),
    ];
    program_variables.into_iter().chain(own.into_iter().flatten()).collect()
}

/// Looks what has become of a try, asks `step` what that means, and tells the try.
fn advance_attempt(attempt: &mut Attempt, chain: &mut Chain, kit: &Kit<'_>, pending: &mut VecDeque<Action>, world: &mut World<'_>) {
    let task = attempt.place;
    while let Some(progress) = attempt.advance(kit, world.reader) {
        match progress {
            Progress::Judged(judged) => {
                let jitter = world.rng.random();
                let input = Input::Judged { task, verdict: judged.verdict, jitter, unkillable: judged.unkillable };
                let before = pending.len();
                chain.step(input, kit.now, pending);
                let last = pending.range(before..).any(|action| *action == Action::Final { task });
                attempt.conclude(kit, judged.verdict, last, world.reader);
            }
            Progress::Freed => {
                chain.step(Input::Freed { task }, kit.now, pending);
                break;
            }
        }
    }
}
