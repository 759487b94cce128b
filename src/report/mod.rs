//! What people see: the log line of every event, and progress bars on a terminal.

pub mod bars;
pub mod log;
mod pace;
mod screen;
pub mod sink;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use ::log::{error, info, warn};

use crate::clock::Seconds;
use crate::event::{Event, Reader, RunRef, StoppedBy, TaskEnd};
use crate::names::{MAIN_CHAIN, counted, digit, printable};
use crate::opinion::{Gravest, Opinion};
use crate::outcome::{ExitKind, RunOutcome, Verdict, signal_name};
use bars::Bars;
use pace::{Pace, Said};
use sink::Stream;

/// Writes a line for each event, and draws bars where there is a terminal for them.
#[derive(Debug)]
pub struct Reporter {
    bars: Option<Bars>,
    hinted: HashSet<&'static str>,
    pace: Pace,
}

/// A task as lines for people name it: with its chain before it where that is not the main one. Fields have the two apart.
fn shown<'a>(run: &RunRef, task: &'a str) -> Cow<'a, str> {
    if run.chain == MAIN_CHAIN { Cow::Borrowed(task) } else { Cow::Owned(format!("{}/{task}", run.chain)) }
}

impl Reporter {
    /// A reporter; `bars` only where nothing but us writes to the terminal.
    pub fn new(bars: Option<Bars>) -> Self {
        Self { bars, hinted: HashSet::new(), pace: Pace::default() }
    }

    fn task_ended(&mut self, run: &RunRef, end: &TaskEnd) {
        let (chain, run_id, task) = (run.chain.as_str(), run.id.as_str(), end.task.text());
        let name = shown(run, task);
        if let Some(said) = self.pace.end(&run.id, task) {
            quote(run, task, &said);
        }
        let duration_ms = u64::try_from(end.duration.as_millis()).unwrap_or(u64::MAX);
        let (code, signal) = (end.exit.code().map(u64::from), end.exit.signal());
        let timed_out = matches!(end.exit, ExitKind::TimedOut { .. });
        let said = end.said.map(Opinion::word);
        let level = match end.verdict {
            Verdict::Ok | Verdict::Skip if end.doubt().is_some() => ::log::Level::Warn,
            Verdict::Ok | Verdict::Skip | Verdict::Cancel => ::log::Level::Info,
            Verdict::Retry if end.last => ::log::Level::Error,
            Verdict::Retry | Verdict::Halt | Verdict::Exit => ::log::Level::Warn,
        };
        ::log::log!(level, event = "task_ended", chain, run_id, task, try_num = end.try_num, max_tries = end.max_tries,
            result = end.verdict.word(), final_try = end.last, exit_code = code, signal, timed_out, duration_ms,
            left_behind = end.left_behind.len(), unkillable = end.unkillable, said; "{name}: {}", EndWords(end));
        if end.unkillable {
            error!(event = "unkillable", chain, run_id, task; "{name}: unkillable, a process of it survives KILL; no second copy is started beside it");
        }
        if !end.left_behind.is_empty() {
            let count = end.left_behind.len();
            let pids = end.left_behind.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            warn!(event = "left_behind", chain, run_id, task, count, pids = pids.as_str(); "{name}: left {} behind: pid {pids}", counted(count, "process"));
        }
        if end.verdict == Verdict::Retry && !end.last && end.exit.code() == Some(3) && self.hinted.insert("exit 3") {
            warn!("{name}: exit 3 is tried again; write stop_codes = 3 to let it end the chain, as the old runner did");
        }
        self.show_tail(&name, end);
    }

    fn show_tail(&self, name: &str, end: &TaskEnd) {
        if !end.show_tail || end.tail.is_empty() {
            return;
        }
        let mut shown = Vec::new();
        let task = printable(name);
        if end.tail_lost > 0 {
            shown.extend_from_slice(format!("{task} | [{} bytes before this are not kept]\n", end.tail_lost).as_bytes());
        }
        for line in end.tail.split_inclusive(|byte| *byte == b'\n') {
            shown.extend_from_slice(task.as_bytes());
            shown.extend_from_slice(b" | ");
            shown.extend_from_slice(line);
        }
        if !shown.ends_with(b"\n") {
            shown.push(b'\n');
        }
        sink::write(Stream::Err, &shown);
    }
}

impl Reader for Reporter {
    fn wake_in(&self) -> Option<Duration> {
        self.bars.as_ref().filter(|bars| bars.is_animated()).map(|_| Duration::from_secs(1))
    }

    fn wake(&mut self) {
        if let Some(bars) = &self.bars {
            bars.tick();
        }
    }

    fn tell(&mut self, run: &RunRef, event: &Event<'_>) {
        if let Some(bars) = &mut self.bars {
            bars.tell(run, event);
        }
        let (chain, run_id) = (run.chain.as_str(), run.id.as_str());
        match event {
            Event::RunStarted { tasks } => {
                info!(event = "run_started", chain, run_id, tasks; "chain {chain}: {}, run {run_id}", counted(*tasks, "task"))
            }
            Event::TaskStarted { task, try_num, max_tries, .. } => {
                let (task, name, of) = (task.text(), shown(run, task.text()), tries(*try_num, *max_tries));
                info!(event = "task_started", chain, run_id, task, try_num, max_tries; "{name}: started, {of}");
            }
            Event::TaskProgress { task, percent, status, result, at } => {
                let says = percent.is_some() || status.is_some_and(|text| !text.is_empty()) || result.is_some();
                let said = || Said { percent: *percent, status: status.map(str::to_owned), result: *result, unshown: 0 };
                if self.bars.is_none()
                    && says
                    && let Some(said) = self.pace.hear(&run.id, task.text(), said(), *at)
                {
                    quote(run, task.text(), &said);
                }
            }
            Event::TaskEnding { task, why, kill_after } => {
                let (task, name, grace) = (task.text(), shown(run, task.text()), Seconds(*kill_after));
                warn!(event = "task_ending", chain, run_id, task; "{name}: {why}; sent TERM, KILL follows in {grace}");
            }
            Event::TaskEnded(end) => self.task_ended(run, end),
            Event::TaskSleeping { task, wait } => {
                let (task, name, wait) = (task.text(), shown(run, task.text()), Seconds(*wait));
                info!(event = "task_sleeping", chain, run_id, task; "{name}: next try in {wait}");
            }
            Event::RunRetry { wait, try_num, max_tries } => {
                let (pause, of) = (Seconds(*wait), tries(*try_num, *max_tries));
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                warn!(event = "run_retry", chain, run_id, try_num, max_tries, wait_ms; "chain {chain}: from the start again in {pause}, {of}");
            }
            Event::HaltStarted { file, reason } => {
                let reason = reason.word();
                warn!(event = "halt_started", chain, run_id, task = file, reason; "halt task {file}: started, reason {reason}");
            }
            Event::HaltEnded { file, exit, duration } => {
                let (took, duration_ms) = (Seconds(*duration), u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
                let code = exit.code().map(u64::from);
                if code == Some(0) {
                    info!(event = "halt_ended", chain, run_id, task = file, exit_code = code, duration_ms; "halt task {file}: done in {took}");
                } else {
                    error!(event = "halt_ended", chain, run_id, task = file, exit_code = code, duration_ms; "halt task {file}: {exit}, in {took}; nothing has been halted by it");
                }
            }
            Event::HookFailed { key, why } => {
                let of = if chain == MAIN_CHAIN { String::new() } else { format!("chain {chain}: ") };
                warn!(event = "hook_failed", chain, run_id, key = *key; "{of}{key}: {why}; the result stays as it is")
            }
            Event::Stopping { signal, by, again } => {
                let name = signal_name(*signal);
                let told = stopping(chain, &name, by, *again);
                warn!(event = "stopping", chain, run_id, signal = name.as_str(); "{told}");
            }
            // Whoever refused it says so, with the way out.
            Event::RunRefused { .. } => {}
            Event::RunEnded { outcome, duration, started, said } => run_ended(run, outcome, Seconds(*duration), *started, *said),
        }
    }
}

/// The line of a run that is told to stop: whether the whole program is, or only this run and why.
fn stopping(chain: &str, signal: &str, by: &StoppedBy, again: bool) -> String {
    let what = match by {
        // Of a daemon and of a tick, which is none: whoever asks for it the second time has no patience, and that is all.
        StoppedBy::Signal | StoppedBy::Daemon if again => {
            return format!("chain {chain}: told to stop by {signal} again; what runs is killed");
        }
        StoppedBy::Signal => return format!("told to stop by {signal}; a second signal kills at once"),
        StoppedBy::Asked => "runner stop".to_owned(),
        StoppedBy::Slot(slot) => return format!("chain {chain}: its run is stopped for the slot {slot} (overlap = replace)"),
        StoppedBy::Daemon => "the daemon stops".to_owned(),
    };
    match again {
        true => format!("chain {chain}: its run is told to stop again ({what}); what runs is killed"),
        false => format!("chain {chain}: its run is told to stop ({what}); a second time kills at once"),
    }
}

/// The line of what a task says of itself.
fn quote(run: &RunRef, task: &str, said: &Said) {
    let (chain, run_id, name) = (run.chain.as_str(), run.id.as_str(), shown(run, task));
    let (status, result) = (said.status.as_deref(), said.result.map(Opinion::word));
    let parts = [
        said.percent.map(|percent| format!("{percent}%")),
        status.map(str::to_owned),
        result.map(|result| format!("says {result}")),
        (said.unshown > 0).then(|| format!("(and {} before it)", counted(usize::try_from(said.unshown).unwrap_or(usize::MAX), "message"))),
    ];
    let text = parts.into_iter().flatten().collect::<Vec<_>>().join(" ");
    info!(event = "task_progress", chain, run_id, task, percent = said.percent.map(u64::from), status, result, unshown = said.unshown; "{name}: {text}");
}

/// How a try of a task ended, in words.
struct EndWords<'a>(&'a TaskEnd);

impl fmt::Display for EndWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0;
        let (exit, took) = (&end.exit, Seconds(end.duration));
        match end.verdict {
            Verdict::Ok => {
                f.write_str("ok in ")?;
                took.fmt(f)?;
            }
            Verdict::Skip => write!(f, "skipped, {exit}, in {took}")?,
            Verdict::Retry => {
                let failed = if end.last { "failed for good" } else { "failed" };
                write!(f, "{failed}: {exit}, in {took}, {}", tries(end.try_num, end.max_tries))?;
            }
            Verdict::Halt => write!(f, "asks for the halt task: {exit}, in {took}")?,
            Verdict::Exit => write!(f, "stops the chain: {exit}, in {took}")?,
            Verdict::Cancel => write!(f, "stopped after {took}")?,
        }
        match end.doubt() {
            Some(said) => write!(f, ", says {}", said.word()),
            None => Ok(()),
        }
    }
}

fn run_ended(run: &RunRef, outcome: &RunOutcome, took: Seconds, started: u32, said: Option<&Gravest>) {
    let (chain, run_id, word) = (run.chain.as_str(), run.id.as_str(), outcome.word());
    let duration_ms = u64::try_from(took.0.as_millis()).unwrap_or(u64::MAX);
    let task = outcome.task().map(crate::names::TaskName::text);
    let why = match outcome {
        RunOutcome::Done => format!("done in {took}, {}", counted(started as usize, "try")),
        RunOutcome::GaveUp { why, task: Some(task) } => format!("gave up after {took}: {}; the last to fail was {task}", why.reason()),
        RunOutcome::GaveUp { why, task: None } => format!("gave up after {took}: {}", why.reason()),
        RunOutcome::Halted { task } => format!("halted by {task} after {took}"),
        RunOutcome::StoppedByTask { task } => format!("stopped by {task} after {took}"),
        RunOutcome::LockLost => format!("its lock was lost after {took}; somebody else may run it now"),
        RunOutcome::Signalled(signal) => format!("stopped by {} after {took}", signal_name(*signal)),
    };
    let doubt = said.filter(|said| said.is_doubt());
    let level = match outcome {
        RunOutcome::Done if doubt.is_none() => ::log::Level::Info,
        RunOutcome::Done | RunOutcome::Halted { .. } | RunOutcome::StoppedByTask { .. } | RunOutcome::Signalled(_) => ::log::Level::Warn,
        RunOutcome::GaveUp { .. } | RunOutcome::LockLost => ::log::Level::Error,
    };
    ::log::log!(level, event = "run_ended", chain, run_id, outcome = word, task, duration_ms, started, said = said.map(|said| said.opinion.word());
        "chain {chain}: {why}{}", doubt.map(|doubt| format!("; {doubt}")).unwrap_or_default());
}

fn tries(try_num: u32, max_tries: u32) -> Tries {
    Tries { try_num, max_tries }
}

/// Which try, of how many if there is a limit.
struct Tries {
    try_num: u32,
    max_tries: u32,
}

impl fmt::Display for Tries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.try_num, self.max_tries) {
            (try_num, u32::MAX) => write!(f, "try {try_num}"),
            // By hand, in one piece: most are so few, and the formatter of the language costs several times as much.
            (try_num @ 0..10, max_tries @ 0..10) => {
                let mut text = *b"try # of #";
                (text[4], text[9]) = (digit(try_num.into()), digit(max_tries.into()));
                f.write_str(std::str::from_utf8(&text).unwrap_or_default())
            }
            (try_num, max_tries) => write!(f, "try {try_num} of {max_tries}"),
        }
    }
}
