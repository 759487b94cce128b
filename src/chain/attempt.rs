//! One try of one task, from its first hook to its last: hook, process, limits, output, verdict, hook.

use std::cell::Cell;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use rustix::event::PollFd;

use super::ears::readable;
use super::setup::{Setup, Task, argv};
use crate::clock::{Clock, Moment};
use crate::config::keys::{Output, TASK_HOOK};
use crate::environment::{Block, OwnVariables};
use crate::event::{Event, Reader, RunRef, TaskEnd};
use crate::hook::{self, HookRun, HookStart};
use crate::notify::Message;
use crate::opinion::Opinion;
use crate::outcome::{ExitKind, LimitKind, Verdict};
use crate::output::{Capture, WriteEnds};
use crate::process::state::Cause;
use crate::process::tree::Mark;
use crate::process::unix::Spec;
use crate::process::{Family, Gone, Supervised, explain_start, find_program};
use crate::task::look_into;

/// How much more time a task may ask for at once in a run that has no limit; its own limit, if that is longer.
const LONGEST_EXTENSION: Duration = Duration::from_secs(3600);

/// What a try needs of the run it belongs to.
pub struct Kit<'a> {
    /// The chain.
    pub setup: &'a Setup,
    /// The run.
    pub run: &'a RunRef,
    /// Everything we have started.
    pub family: &'a Family,
    /// The clocks, for what is started: others may have taken their time since `now`.
    pub clock: &'a dyn Clock,
    /// When what is acted on was heard.
    pub now: Moment,
    /// The variables that are the same for all tries of the run.
    pub run_variables: &'a Block,
    /// When the whole run is over at the latest.
    pub run_deadline: Option<Moment>,
}

/// What is known of a try when its processes are gone.
#[derive(Debug, Clone, Copy)]
pub struct Judged {
    /// What its end means.
    pub verdict: Verdict,
    /// A process of it survives KILL.
    pub unkillable: bool,
}

/// How far a try has come.
#[derive(Debug)]
pub enum Progress {
    /// Its processes are gone; [`Attempt::conclude`] comes next.
    Judged(Judged),
    /// Its last hook has run.
    Freed,
}

/// One try.
#[derive(Debug)]
pub struct Attempt {
    /// The place of its task.
    pub place: usize,
    /// Which try it is.
    pub try_num: u32,
    max_tries: u32,
    stage: Stage,
    /// The variables that only this try has; its hooks see them, too.
    variables: OwnVariables,
    capture: Option<Capture>,
    started: Moment,
    ended: Moment,
    deadline: Option<Moment>,
    last_sign: Moment,
    said: Option<Opinion>,
    end: Option<Gone>,
    not_started: Option<String>,
    /// What it is to be given is too long for any program: it will be so the next time.
    too_long: bool,
    cancelled: bool,
    /// Where its descriptors stand among all that were listened to last; nothing when it began after that.
    listened: Cell<Option<Places>>,
}

/// Where descriptors stand among all that are listened to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Places {
    /// The first.
    pub begin: usize,
    /// The one behind the last.
    pub end: usize,
}

impl Places {
    /// Whether one of them is ready; `ready` says it of all.
    pub fn are_ready(self, ready: &[bool]) -> bool {
        ready.get(self.begin..self.end).is_some_and(|own| own.contains(&true))
    }
}

#[derive(Debug)]
enum Stage {
    Before(HookRun),
    Running(Supervised),
    /// Its processes are gone, or never were; nobody has been told yet.
    Over,
    /// Told; [`Attempt::conclude`] is awaited.
    Told,
    After(HookRun),
    Finished,
}

impl Attempt {
    /// Begins a try: its hook first, if there is one.
    pub fn begin(kit: &Kit<'_>, place: usize, try_num: u32, max_tries: u32, reader: &mut dyn Reader) -> Self {
        let (task, now) = (kit.setup.task_at(place), kit.now);
        let mut attempt = Self {
            place,
            try_num,
            max_tries,
            stage: Stage::Over,
            variables: try_variables(task, try_num, max_tries),
            capture: None,
            started: now,
            ended: now,
            deadline: None,
            last_sign: now,
            said: None,
            end: None,
            not_started: None,
            too_long: false,
            cancelled: false,
            listened: Cell::new(None),
        };
        if kit.setup.chain.task_hook.is_some() {
            attempt.tell_times(kit, kit.clock.wall());
        }
        let message = || hook::before_task(kit.run, &task.name, try_num, max_tries);
        match attempt.start_hook(kit, &message, reader) {
            Some(hook) => attempt.stage = Stage::Before(hook),
            None => attempt.start_task(kit, reader),
        }
        attempt
    }

    fn start_hook(&self, kit: &Kit<'_>, message: &dyn Fn() -> serde_json::Value, reader: &mut dyn Reader) -> Option<HookRun> {
        let command = kit.setup.chain.task_hook.as_ref()?;
        let variables = &kit.setup.variables;
        let mut own = self.variables.clone();
        own.add("RUNNER_HOOK", b"task");
        let start = HookStart {
            key: TASK_HOOK.info.name,
            command,
            message: &message(),
            env: &[&variables.block, kit.run_variables, &own.to_strings()],
            search: variables.search.as_deref(),
            max_time: kit.setup.chain.hook_max_time,
            kill_after: kit.setup.chain.task.kill_after,
        };
        match HookRun::start(&start, kit.family, kit.clock.now()) {
            Ok(hook) => Some(hook),
            Err(why) => {
                reader.tell(kit.run, &Event::HookFailed { key: start.key, why: &why });
                None
            }
        }
    }

    fn start_task(&mut self, kit: &Kit<'_>, reader: &mut dyn Reader) {
        if !reader.may_start() {
            (self.cancelled, self.stage) = (true, Stage::Over);
            return;
        }
        let task = kit.setup.task_at(self.place);
        let at = kit.clock.wall();
        reader.tell(kit.run, &Event::TaskStarted { task: &task.name, try_num: self.try_num, max_tries: self.max_tries, at });
        self.tell_times(kit, at);
        (self.started, self.last_sign, self.ended) = (kit.now, kit.now, kit.now);
        self.deadline = kit.now.after(task.settings.max_time);
        match self.spawn(kit, task) {
            Ok(process) => self.stage = Stage::Running(process),
            Err(why) => {
                self.not_started = Some(why);
                self.stage = Stage::Over;
            }
        }
    }

    /// Its variables that speak of time, as it is `at` this moment: its limits count from its start, behind the hook.
    fn tell_times(&mut self, kit: &Kit<'_>, at: Timestamp) {
        self.variables.truncate(TIMELESS);
        if let Some(ends) = kit.run.trigger.window_ends {
            // May be negative: the window of an idle chain does not end its tasks.
            self.variables.add_number("RUNNER_TIME_LEFT", ends.duration_since(at).as_secs());
        }
        let run_left = kit.run_deadline.map(|end| end.since(kit.now));
        let limit = kit.setup.task_at(self.place).settings.max_time.duration();
        add_limits(&mut self.variables, limit, run_left, at);
    }

    fn spawn(&mut self, kit: &Kit<'_>, task: &Task) -> Result<Supervised, String> {
        let settings = &task.settings;
        let interpreter = match &settings.interpreter {
            None => None,
            Some(command) => {
                // An interpreter's own "no such file" may look like HALT: the file is looked at first.
                look_into(&task.path).map_err(|error| format!("{}: {error}", task.path.display()))?;
                let program = find_program(OsStr::new(command.program()), task.variables.search.as_deref());
                Some((program.ok_or_else(|| format!("the interpreter `{}` is not found through PATH", command.program()))?, command))
            }
        };
        let interpreter = interpreter.as_ref().map(|(program, command)| (program.as_path(), *command));
        let program = interpreter.map_or(task.path.as_path(), |(program, _)| program);
        let argv = argv(&task.path, interpreter, &settings.args).ok_or_else(|| "a word of its command holds a NUL byte".to_owned())?;
        let ends = self.open_output(kit, task)?;
        let working_dir = settings.working_dir.as_ref().and_then(|dir| CString::new(dir.as_os_str().as_encoded_bytes()).ok());
        let reads = interpreter.and(task.identity.as_ref()).and_then(|_| CString::new(task.path.as_os_str().as_encoded_bytes()).ok());
        let spec = Spec {
            argv: &argv,
            env: &[&task.variables.block, kit.run_variables],
            own_env: &self.variables,
            stdin: None,
            stdout: ends.as_ref().map(|ends| ends.out.as_fd()),
            stderr: ends.as_ref().map(|ends| ends.err.as_fd()),
            working_dir: working_dir.as_deref(),
            identity: task.identity.as_deref(),
            umask: settings.umask,
            nice: settings.nice,
            reads: reads.as_deref(),
        };
        let mark = Mark { run: kit.run.id.clone(), task: task.name.clone(), try_num: self.try_num };
        Supervised::start(&spec, kit.family, Some(mark), settings.kill_after, settings.sweep).map_err(|error| {
            self.too_long = error.kind() == io::ErrorKind::ArgumentListTooLong;
            match (&settings.user, &reads) {
                (Some(user), Some(_)) if error.kind() == io::ErrorKind::PermissionDenied => {
                    format!("{} may not be read by the user {user}, or {} not be executed", task.path.display(), program.display())
                }
                (Some(_) | None, Some(_) | None) => explain_start(program, settings.working_dir.as_deref(), &error),
            }
        })
    }

    fn open_output(&mut self, kit: &Kit<'_>, task: &Task) -> Result<Option<WriteEnds>, String> {
        let echo = match kit.setup.output_of(task) {
            Output::Inherit | Output::Auto => return Ok(None),
            Output::Prefix => true,
            Output::Capture => false,
        };
        let (capture, ends) = Capture::new(&kit.setup.label_of(task), echo).map_err(|error| format!("no pipe for its output: {error}"))?;
        self.capture = Some(capture);
        Ok(Some(ends))
    }

    /// Whether another try cannot begin either: its arguments are too long for any program.
    pub fn is_hopeless(&self) -> bool {
        self.too_long
    }

    /// The process of the task, while it runs.
    pub fn process(&self) -> Option<&Supervised> {
        match &self.stage {
            Stage::Running(process) => Some(process),
            Stage::Before(_) | Stage::Over | Stage::Told | Stage::After(_) | Stage::Finished => None,
        }
    }

    /// The descriptors that become readable when something happened to it.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let process = match &self.stage {
            Stage::Before(hook) | Stage::After(hook) => Some(hook.process()),
            Stage::Running(process) => Some(process),
            Stage::Over | Stage::Told | Stage::Finished => None,
        };
        process.into_iter().flat_map(Supervised::fds).chain(self.capture.iter().flat_map(Capture::fds))
    }

    /// Adds them to those that are listened to, and remembers where they stand.
    pub fn add_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        let begin = fds.len();
        fds.extend(self.fds().map(readable));
        self.listened.set(Some(Places { begin, end: fds.len() }));
    }

    /// Whether one of them is ready; `ready` says it of all that were listened to.
    pub fn has_news(&self, ready: &[bool]) -> bool {
        self.listened.get().is_none_or(|places| places.are_ready(ready))
    }

    /// The next moment at which time alone changes something.
    pub fn wake_at(&self, setup: &Setup) -> Option<Moment> {
        match &self.stage {
            Stage::Before(hook) | Stage::After(hook) => hook.wake_at(),
            Stage::Running(process) => {
                let limits = process.is_running().then(|| self.next_limit(setup)).flatten().map(|(at, _)| at);
                process.wake_at().into_iter().chain(limits).min()
            }
            Stage::Over | Stage::Finished => Some(Moment::default()),
            Stage::Told => None,
        }
    }

    fn next_limit(&self, setup: &Setup) -> Option<(Moment, LimitKind)> {
        let idle = self.last_sign.after(setup.task_at(self.place).settings.idle_timeout);
        match (self.deadline, idle) {
            (Some(deadline), Some(idle)) if idle < deadline => Some((idle, LimitKind::Idle)),
            (Some(deadline), Some(_) | None) => Some((deadline, LimitKind::MaxTime)),
            (None, Some(idle)) => Some((idle, LimitKind::Idle)),
            (None, None) => None,
        }
    }

    /// A task has said something of itself; any word is a sign of life.
    pub fn hear(&mut self, kit: &Kit<'_>, messages: &[Message], reader: &mut dyn Reader) {
        let (task, now) = (&kit.setup.task_at(self.place).name, kit.now);
        let (mut percent, mut status, mut result) = (None, None, None);
        for message in messages {
            self.last_sign = now;
            match message {
                Message::Status(text) => status = Some(text.as_str()),
                Message::Progress(value) => percent = Some(*value),
                Message::Result(opinion) => result = Some(*opinion),
                Message::Alive => {}
                Message::Extend(more) => {
                    let limit = kit.setup.task_at(self.place).settings.max_time.duration().unwrap_or_default();
                    let wanted = extended(*more, limit, kit.run_deadline, now);
                    self.deadline = self.deadline.map(|deadline| deadline.max(wanted));
                }
            }
        }
        self.said = result.or(self.said);
        reader.tell(kit.run, &Event::TaskProgress { task, percent, status, result, at: now });
    }

    /// It is to stop: TERM, grace, KILL. A task whose hook still runs is not started any more.
    pub fn cancel(&mut self, kit: &Kit<'_>) {
        self.cancelled = true;
        if let Stage::Running(process) = &mut self.stage {
            process.stop(kit.family, kit.now);
        }
    }

    /// It is to be gone, its hook as well.
    pub fn kill_now(&mut self, kit: &Kit<'_>) {
        self.cancelled = true;
        match &mut self.stage {
            Stage::Running(process) => process.kill_now(kit.family, kit.now),
            Stage::Before(hook) | Stage::After(hook) => hook.kill_now(kit.family, kit.now),
            Stage::Over | Stage::Told | Stage::Finished => {}
        }
    }

    /// Looks what has happened to it. Call until it has nothing more to tell.
    pub fn advance(&mut self, kit: &Kit<'_>, reader: &mut dyn Reader) -> Option<Progress> {
        if let Some(capture) = &mut self.capture {
            capture.read();
        }
        match &mut self.stage {
            Stage::Before(hook) => {
                let result = hook.advance(kit.family, kit.now)?;
                tell_hook(kit, reader, hook.key, result);
                self.stage = Stage::Over;
                if !self.cancelled {
                    self.start_task(&Kit { now: kit.clock.now(), ..*kit }, reader);
                }
                self.advance(kit, reader)
            }
            Stage::Running(_) => self.advance_process(kit, reader),
            Stage::Over => {
                self.stage = Stage::Told;
                let unkillable = self.end.as_ref().is_some_and(|gone| gone.unkillable);
                Some(Progress::Judged(Judged { verdict: self.verdict(kit), unkillable }))
            }
            Stage::Told => None,
            Stage::After(hook) => {
                let result = hook.advance(kit.family, kit.now)?;
                tell_hook(kit, reader, hook.key, result);
                self.stage = Stage::Finished;
                Some(Progress::Freed)
            }
            Stage::Finished => Some(Progress::Freed),
        }
    }

    fn advance_process(&mut self, kit: &Kit<'_>, reader: &mut dyn Reader) -> Option<Progress> {
        let now = kit.now;
        let limit = self.next_limit(kit.setup).filter(|(at, _)| now >= *at);
        let settings = &kit.setup.task_at(self.place).settings;
        let Stage::Running(process) = &mut self.stage else { return None };
        if let Some((_, kind)) = limit.filter(|_| process.is_running()) {
            process.limit(kind, kit.family, now);
            if !process.is_running() {
                let why = ExitKind::TimedOut { limit: kind, after: limit_length(settings, kind) }.to_string();
                let event = Event::TaskEnding { task: &kit.setup.task_at(self.place).name, why: &why, kill_after: settings.kill_after };
                reader.tell(kit.run, &event);
            }
        }
        let failed = |end| !matches!(settings.codes.verdict(&ExitKind::Ended(end)), Verdict::Ok | Verdict::Skip);
        self.end = Some(process.advance(kit.family, now, failed)?);
        if let Some(capture) = &mut self.capture {
            capture.finish();
        }
        self.ended = moment_of_end(self.started, now, kit.clock);
        self.stage = Stage::Over;
        self.advance(kit, reader)
    }

    fn exit(&self, kit: &Kit<'_>) -> ExitKind {
        if let Some(why) = &self.not_started {
            return ExitKind::NotStarted(why.clone());
        }
        let settings = &kit.setup.task_at(self.place).settings;
        match self.end {
            Some(Gone { cause: Some(Cause::Limit(limit)), .. }) => ExitKind::TimedOut { limit, after: limit_length(settings, limit) },
            Some(Gone { cause: None, end: Some(end), .. }) => ExitKind::Ended(end),
            Some(Gone { cause: Some(Cause::Stopped), .. } | Gone { cause: None, end: None, .. }) | None => ExitKind::Cancelled,
        }
    }

    fn verdict(&self, kit: &Kit<'_>) -> Verdict {
        kit.setup.task_at(self.place).settings.codes.verdict(&self.exit(kit))
    }

    /// The chain knows now whether there is another try: tells everybody, and runs the last hook.
    pub fn conclude(&mut self, kit: &Kit<'_>, verdict: Verdict, last: bool, reader: &mut dyn Reader) {
        let task = kit.setup.task_at(self.place);
        let exit = self.exit(kit);
        let (tail, tail_lost) = self.capture.as_mut().map(Capture::take_tail).unwrap_or_default();
        let failed = !matches!(verdict, Verdict::Ok | Verdict::Skip);
        let captured = kit.setup.output_of(task) == Output::Capture;
        let end = TaskEnd {
            task: task.name.clone(),
            try_num: self.try_num,
            max_tries: self.max_tries,
            exit,
            verdict,
            last,
            duration: self.ended.since(self.started),
            said: self.said,
            left_behind: self.end.iter().flat_map(|gone| &gone.left_behind).map(|pid| pid.as_raw_pid()).collect(),
            unkillable: self.end.as_ref().is_some_and(|gone| gone.unkillable),
            tail,
            tail_lost,
            show_tail: failed && captured,
        };
        let began = self.end.is_some() || self.not_started.is_some();
        self.stage = Stage::Finished;
        if began {
            reader.tell(kit.run, &Event::TaskEnded(&end));
            if let Some(hook) = self.start_hook(kit, &|| hook::after_task(kit.run, &end), reader) {
                self.stage = Stage::After(hook);
            }
        }
    }

    /// What its task has said last of itself.
    pub fn said(&self) -> Option<Opinion> {
        self.said
    }

    /// Whether there is nothing more to come of it.
    pub fn is_finished(&self) -> bool {
        matches!(self.stage, Stage::Finished)
    }

    /// The pipes that somebody who lives on may still write to.
    pub fn into_leaked_output(self) -> Option<Capture> {
        self.capture.filter(Capture::is_open)
    }
}

fn tell_hook(kit: &Kit<'_>, reader: &mut dyn Reader, key: &'static str, result: Result<(), String>) {
    if let Err(why) = result {
        reader.tell(kit.run, &Event::HookFailed { key, why: &why });
    }
}

/// When a task was found to be over. What was begun since we last listened may be over when it is first looked at: it has run on
/// while we came back from starting it, and what we heard last lies before its beginning.
fn moment_of_end(started: Moment, heard: Moment, clock: &dyn Clock) -> Moment {
    if heard > started { heard } else { clock.now() }
}

/// When a task is to end that has asked for so much more time: never after the end of its run. Where that has none, it has to
/// ask again (as with systemd, sd_notify(3), EXTEND_TIMEOUT_USEC): one that hangs after it has asked is ended all the same.
fn extended(more: Duration, limit: Duration, run_deadline: Option<Moment>, now: Moment) -> Moment {
    run_deadline.map_or(now + more.min(limit.max(LONGEST_EXTENSION)), |end| (now + more).min(end))
}

fn limit_length(settings: &Rc<crate::config::settings::TaskSettings>, kind: LimitKind) -> Duration {
    let limit = match kind {
        LimitKind::MaxTime => settings.max_time,
        LimitKind::Idle => settings.idle_timeout,
    };
    limit.duration().unwrap_or_default()
}

/// How many variables of a try have nothing to do with time; they come first.
const TIMELESS: usize = 3;

fn try_variables(task: &Task, try_num: u32, max_tries: u32) -> OwnVariables {
    let mut variables = OwnVariables::new();
    variables.add("RUNNER_TASK", task.name.file().as_encoded_bytes());
    variables.add_number("RUNNER_TRY", try_num.into());
    variables.add_number("RUNNER_MAX_TRIES", max_tries.into());
    variables
}

/// Adds the limit of a task as it sees it, in seconds, and the Unix time at which that or the run is over, if it begins at `at`.
pub fn add_limits(variables: &mut OwnVariables, limit: Option<Duration>, run_left: Option<Duration>, at: Timestamp) {
    let whole = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match limit {
        Some(limit) if limit.subsec_nanos() == 0 => variables.add_number("RUNNER_TIME_LIMIT", whole(limit)),
        Some(limit) => variables.add("RUNNER_TIME_LIMIT", limit.as_secs_f64().to_string().as_bytes()),
        None => {}
    }
    if let Some(left) = limit.into_iter().chain(run_left).min() {
        variables.add_number("RUNNER_DEADLINE", at.as_second().saturating_add(whole(left)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_asked_for_again_and_again_where_a_run_has_no_limit() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let now = Moment::at(hours(10));
        let asked = |more, limit, end: Option<Duration>| extended(more, limit, end.map(Moment::at), now);
        assert_eq!(asked(hours(1), hours(0), None), Moment::at(hours(11)));
        assert_eq!(asked(Duration::MAX, hours(0), None), Moment::at(hours(11)), "not for ever");
        assert_eq!(asked(hours(9), hours(3), None), Moment::at(hours(13)));
        assert_eq!(asked(hours(9), hours(0), Some(hours(12))), Moment::at(hours(12)));
        assert_eq!(asked(hours(9), hours(0), Some(hours(99))), Moment::at(hours(19)), "the run has its own limit");
    }
}
