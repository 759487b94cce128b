//! What goes on in this program, gathered from its events for those who look: the runs with their tasks, the last ones that
//! ended, and what was counted; beside it what the history knows of runs before it and in other programs. Touches nothing
//! but the clock.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use jiff::tz::TimeZone;

use crate::clock::Clock;
use crate::event::{Event, Reader, RunRef, StoppedBy, TaskEnd};
use crate::names::{RunId, TaskName};
use crate::opinion::{Gravest, Opinion};
use crate::outcome::{ExitKind, RunOutcome, Verdict};
use crate::status::{Date, Ended, GivenUp, LOCK_LOST, Past, Run, RunTotal, SaidTotal, Task, TaskState, Totals, Try, TryTotal, is_ahead};

/// How many ended runs of each chain are kept.
const KEPT_RUNS: usize = 20;
/// How many of these may be such that did not begin: a chain that hangs has one each minute.
const KEPT_UNBEGUN: usize = 5;
/// How much of the output of a try that failed is kept, in bytes.
const KEPT_OUTPUT: usize = 4096;

/// The board. Its clones are the same board: one hears the events, another is looked at.
#[derive(Clone)]
pub struct Board(Rc<RefCell<Live>>);

/// What is known of one chain.
#[derive(Debug, Clone, Default)]
pub struct OfChain {
    /// Its runs that are under way.
    pub running: Vec<Run>,
    /// Its last runs, the newest first.
    pub ended: Vec<Run>,
    /// When a run last ended well.
    pub last_success: Option<Date>,
    /// What was counted.
    pub totals: Totals,
    /// What came to nothing since a run last began.
    pub given_up: Option<GivenUp>,
}

struct Live {
    clock: Box<dyn Clock>,
    zone: TimeZone,
    running: HashMap<RunId, (String, Run)>,
    ended: HashMap<String, Vec<Run>>,
    last_success: HashMap<String, Date>,
    totals: HashMap<String, Totals>,
    given_up: HashMap<String, GivenUp>,
    /// What the history knows; `None` until it was asked.
    past: Option<HashMap<String, Past>>,
}

impl Board {
    /// An empty board, whose dates are those of `zone`.
    pub fn new(clock: Box<dyn Clock>, zone: TimeZone) -> Self {
        let (running, ended, last_success) = (HashMap::new(), HashMap::new(), HashMap::new());
        let (totals, given_up) = (HashMap::new(), HashMap::new());
        Self(Rc::new(RefCell::new(Live { clock, zone, running, ended, last_success, totals, given_up, past: None })))
    }

    /// What is known of a chain: here, and where the history knows more, from there.
    pub fn of_chain(&self, chain: &str) -> OfChain {
        let live = self.0.borrow();
        let mut running: Vec<Run> = live.running.values().filter(|(of, _)| of == chain).map(|(_, run)| run.clone()).collect();
        let mut ended: Vec<Run> = live.ended.get(chain).into_iter().flatten().cloned().collect();
        let (mut last_success, mut given_up) = (live.last_success.get(chain).copied(), live.given_up.get(chain).cloned());
        if let Some(past) = live.past.as_ref().and_then(|past| past.get(chain)) {
            let of_others = |run: &&Run| live.running.keys().all(|id| id.as_str() != run.id) && ended.iter().all(|own| own.id != run.id);
            let runs: Vec<Run> = past.runs.iter().filter(of_others).cloned().collect();
            running.extend(past.running.iter().filter(of_others).cloned());
            for own in ended.iter_mut().filter(|own| own.exit_code.is_none()) {
                // Which code an outcome leads to is known to whoever writes it down.
                own.exit_code = past.runs.iter().find(|known| known.id == own.id).and_then(|known| known.exit_code);
            }
            ended.extend(runs);
            ended.sort_by_key(|run| std::cmp::Reverse(run.started_at.at));
            thin_out(&mut ended);
            last_success = later(last_success, past.last_success, live.now());
            given_up = more(given_up, past.given_up.clone());
        }
        running.sort_by_key(|run| run.started_at.at);
        let has_begun = |run: &&Run| run.outcome != Some(Ended::NotStarted);
        let begun = running.iter().chain(&ended).filter(has_begun).map(|run| run.started_at.at).max();
        OfChain {
            running,
            ended,
            last_success,
            totals: live.totals.get(chain).cloned().unwrap_or_default(),
            given_up: given_up.filter(|given_up| begun.is_none_or(|begun| given_up.last_at.at >= begun)),
        }
    }

    /// This is what the history knows of these chains.
    pub fn remember(&self, known: Vec<(String, Past)>) {
        self.0.borrow_mut().past.get_or_insert_default().extend(known);
    }

    /// Whether the history was heard.
    pub fn remembers(&self) -> bool {
        self.0.borrow().past.is_some()
    }

    /// A run did not begin: why, in a word and in words.
    pub fn not_begun(&self, run: &RunRef, reason: &str, why: &str) {
        let count = self.of_chain(&run.chain).given_up.map_or(0, |known| known.count) + 1;
        let mut live = self.0.borrow_mut();
        let mut record = live.begun(run);
        let given_up = GivenUp { count, last_at: record.started_at, reason: reason.to_owned(), why: Some(why.to_owned()) };
        live.given_up.insert(run.chain.clone(), given_up);
        record.ended_at = Some(record.started_at);
        record.outcome = Some(Ended::NotStarted);
        record.why = Some(why.to_owned());
        live.keep(&run.chain, record);
    }
}

impl Reader for Board {
    fn tell(&mut self, run: &RunRef, event: &Event<'_>) {
        let mut live = self.0.borrow_mut();
        let now = live.now();
        if let Event::RunStarted { .. } = event {
            let begun = live.begun(run);
            live.running.insert(run.id.clone(), (run.chain.clone(), begun));
            live.given_up.remove(&run.chain);
            if let Some(past) = live.past.as_mut().and_then(|past| past.get_mut(&run.chain)) {
                past.given_up = None;
            }
            return;
        }
        if let Event::TaskEnded(end) = event {
            live.count_try(&run.chain, end);
        }
        if let Event::RunEnded { outcome, said, .. } = event {
            if let Some((_, record)) = live.running.remove(&run.id) {
                live.keep(&run.chain, ended(record, outcome, *said, now));
            }
            return;
        }
        if let Some((_, record)) = live.running.get_mut(&run.id) {
            note(record, event, now);
        }
    }
}

impl Live {
    fn now(&self) -> Date {
        Date::new(self.clock.wall(), &self.zone)
    }

    fn begun(&self, run: &RunRef) -> Run {
        let scheduled_at = run.trigger.scheduled_at.as_ref().map(|at| Date::new(at.timestamp(), at.time_zone()));
        Run {
            id: run.id.as_str().to_owned(),
            trigger: run.trigger.kind.word().to_owned(),
            scheduled_at,
            started_at: self.now(),
            ended_at: None,
            outcome: None,
            why: None,
            exit_code: None,
            said: None,
            try_num: 1,
            max_tries: u32::MAX,
            until: None,
            closing: None,
            tasks: Vec::new(),
        }
    }

    fn keep(&mut self, chain: &str, run: Run) {
        let seconds = run.ended_at.map_or(0.0, |end| run.seconds(end));
        if let Some(outcome) = run.outcome {
            if outcome == Ended::Done {
                self.last_success.extend(run.ended_at.map(|end| (chain.to_owned(), end)));
            }
            let runs = &mut self.totals.entry(chain.to_owned()).or_default().runs;
            match runs.iter_mut().find(|total| total.outcome == outcome) {
                Some(total) => {
                    total.count += 1;
                    total.seconds += seconds;
                }
                None => runs.push(RunTotal { outcome, count: 1, seconds }),
            }
        }
        let ended = self.ended.entry(chain.to_owned()).or_default();
        ended.insert(0, run);
        thin_out(ended);
    }

    fn count_try(&mut self, chain: &str, end: &TaskEnd) {
        let (task, result, seconds) = (end.task.text(), end.verdict.word(), end.duration.as_secs_f64());
        let Totals { tries, said: words, .. } = self.totals.entry(chain.to_owned()).or_default();
        if let Some(said) = end.said.map(Opinion::word) {
            match words.iter_mut().find(|total| total.said == said) {
                Some(total) => total.count += 1,
                None => words.push(SaidTotal { said: said.to_owned(), count: 1 }),
            }
        }
        match tries.iter_mut().find(|total| total.task == task && total.result == result) {
            Some(total) => {
                total.count += 1;
                total.seconds += seconds;
            }
            None => tries.push(TryTotal { task: task.to_owned(), result: result.to_owned(), count: 1, seconds }),
        }
    }
}

/// Leaves as many as are kept of ended runs, the newest first.
fn thin_out(ended: &mut Vec<Run>) {
    let (mut begun, mut others) = (KEPT_RUNS, KEPT_UNBEGUN);
    ended.retain(|run| {
        let left = if run.outcome == Some(Ended::NotStarted) { &mut others } else { &mut begun };
        let is_kept = *left > 0;
        *left = left.saturating_sub(1);
        is_kept
    });
    ended.truncate(KEPT_RUNS);
}

/// The later of two successes; one that is dated ahead is from a clock that was wrong.
fn later(one: Option<Date>, other: Option<Date>, now: Date) -> Option<Date> {
    one.into_iter().chain(other).max_by_key(|date| (!is_ahead(date.at, now.at), date.at))
}

/// What came to nothing, as whoever knows of more has it, with the last one that either knows.
fn more(one: Option<GivenUp>, other: Option<GivenUp>) -> Option<GivenUp> {
    let count = one.iter().chain(&other).map(|given_up| given_up.count).max()?;
    let last = one.into_iter().chain(other).max_by_key(|given_up| given_up.last_at.at)?;
    Some(GivenUp { count, ..last })
}

fn ended(mut run: Run, outcome: &RunOutcome, said: Option<&Gravest>, now: Date) -> Run {
    run.ended_at = Some(now);
    run.said = said.map(|said| said.opinion.word().to_owned());
    let (how, why) = match outcome {
        RunOutcome::Done => (Ended::Done, said.filter(|said| said.is_doubt()).map(ToString::to_string)),
        RunOutcome::GaveUp { why, task } => (Ended::GaveUp, Ended::GaveUp.why(task.as_ref().map(TaskName::text), Some(why.reason()))),
        RunOutcome::Halted { task } => (Ended::Halted, Ended::Halted.why(Some(task.text()), None)),
        RunOutcome::StoppedByTask { task } => (Ended::Stopped, Ended::Stopped.why(Some(task.text()), None)),
        RunOutcome::LockLost => (Ended::LockLost, Some(LOCK_LOST.to_owned())),
        RunOutcome::Signalled(signal) => (Ended::Signalled, Some(run.why.take().unwrap_or_else(|| StoppedBy::Signal.words(*signal)))),
    };
    (run.outcome, run.why) = (Some(how), why);
    run
}

/// Takes down what happened to a task of a run.
fn note(run: &mut Run, event: &Event<'_>, now: Date) {
    match event {
        Event::TaskStarted { task, try_num, max_tries, .. } => {
            run.until = None;
            let task = task_of(run, task.text());
            task.max_tries = Some(*max_tries);
            (task.state, task.progress, task.status, task.until) = (TaskState::Running, None, None, None);
            task.tries.push(Try::begun(*try_num, now));
        }
        Event::TaskProgress { task, percent, status, result, .. } => {
            let task = task_of(run, task.text());
            task.progress = percent.or(task.progress);
            if let (Some(result), Some(last)) = (result, task.tries.last_mut()) {
                last.said = Some(result.word().to_owned());
            }
            if let Some(status) = status {
                task.status = Some((*status).to_owned());
            }
        }
        Event::TaskEnded(end) => end_of_try(task_of(run, end.task.text()), end),
        Event::TaskSleeping { task, wait } => {
            let task = task_of(run, task.text());
            task.state = TaskState::Sleeping;
            task.until = now.after(*wait);
        }
        Event::RunRetry { wait, try_num, max_tries } => {
            (run.try_num, run.max_tries, run.until) = (*try_num, *max_tries, now.after(*wait));
            run.why = Some(format!("from the start again in {}", crate::clock::Seconds(*wait)));
        }
        Event::Stopping { signal, by, again } => {
            if !again {
                run.why = Some(by.words(*signal));
            }
        }
        Event::RunStarted { .. }
        | Event::RunRefused { .. }
        | Event::TaskEnding { .. }
        | Event::HaltStarted { .. }
        | Event::HaltEnded { .. }
        | Event::HookFailed { .. }
        | Event::RunEnded { .. } => {}
    }
}

fn task_of<'a>(run: &'a mut Run, file: &str) -> &'a mut Task {
    let at = run.tasks.iter().position(|task| task.file == file).unwrap_or_else(|| {
        let (state, tries) = (TaskState::Waiting, Vec::new());
        run.tasks.push(Task { file: file.to_owned(), state, progress: None, status: None, until: None, pid: None, max_tries: None, tries });
        run.tasks.len() - 1
    });
    &mut run.tasks[at]
}

fn end_of_try(task: &mut Task, end: &TaskEnd) {
    task.state = match end.verdict {
        Verdict::Ok => TaskState::Done,
        Verdict::Skip => TaskState::Skipped,
        Verdict::Retry => TaskState::Failed,
        Verdict::Halt | Verdict::Exit | Verdict::Cancel => TaskState::Cancelled,
    };
    let Some(last) = task.tries.last_mut() else { return };
    last.duration_ms = Some(u64::try_from(end.duration.as_millis()).unwrap_or(u64::MAX));
    last.result = Some(end.verdict.word().to_owned());
    last.end = Some(end.exit.to_string());
    (last.exit_code, last.signal) = (end.exit.code(), end.exit.signal());
    last.timed_out = matches!(end.exit, ExitKind::TimedOut { .. });
    if task.state != TaskState::Done && !end.tail.is_empty() {
        let from = end.tail.len().saturating_sub(KEPT_OUTPUT);
        last.output = Some(String::from_utf8_lossy(&end.tail[from..]).into_owned());
        last.output_lost = end.tail_lost + u64::try_from(from).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Moment;
    use crate::outcome::{GiveUp, ProcessEnd};
    use crate::trigger::{Trigger, TriggerKind};

    struct StandingClock;

    impl Clock for StandingClock {
        fn now(&self) -> Moment {
            Moment::default()
        }

        fn wall(&self) -> jiff::Timestamp {
            jiff::Timestamp::from_second(1_800_000_000).unwrap_or_default()
        }
    }

    fn end(verdict: Verdict, code: u8, tail: &[u8]) -> TaskEnd {
        TaskEnd {
            task: TaskName::parse("1-a.sh"),
            try_num: 1,
            max_tries: 2,
            exit: ExitKind::Ended(ProcessEnd::Code(code)),
            verdict,
            last: false,
            duration: Duration::from_millis(1500),
            said: None,
            left_behind: Vec::new(),
            unkillable: false,
            tail: tail.to_vec(),
            tail_lost: 0,
            show_tail: false,
        }
    }

    #[test]
    fn a_run_is_seen_while_it_goes_on_and_afterwards() {
        let board = Board::new(Box::new(StandingClock), TimeZone::UTC);
        let mut ears = board.clone();
        let run = RunRef { chain: "a".into(), id: RunId::new("", 0, 1), trigger: Trigger::of(TriggerKind::Now) };
        let task = TaskName::parse("1-a.sh");
        ears.tell(&run, &Event::RunStarted { tasks: 1 });
        ears.tell(&run, &Event::TaskStarted { task: &task, try_num: 1, max_tries: 2, at: jiff::Timestamp::UNIX_EPOCH });
        ears.tell(&run, &Event::TaskProgress { task: &task, percent: Some(40), status: Some("half"), result: None, at: Moment::default() });
        let seen = board.of_chain("a");
        assert_eq!(
            (seen.running.len(), seen.running[0].tasks[0].progress, seen.running[0].tasks[0].state),
            (1, Some(40), TaskState::Running)
        );
        ears.tell(&run, &Event::TaskEnded(&end(Verdict::Retry, 7, b"why it failed\n")));
        let outcome = RunOutcome::GaveUp { why: GiveUp::Tries, task: Some(task) };
        ears.tell(&run, &Event::RunEnded { outcome: &outcome, duration: Duration::from_secs(2), started: 1, said: None });
        let seen = board.of_chain("a");
        assert!(seen.running.is_empty() && seen.last_success.is_none());
        let last = &seen.ended[0].tasks[0].tries[0];
        assert_eq!(
            (seen.ended[0].outcome, last.exit_code, last.output.as_deref()),
            (Some(Ended::GaveUp), Some(7), Some("why it failed\n"))
        );
        assert_eq!((seen.totals.runs[0].count, seen.totals.tries[0].result.as_str(), seen.totals.tries[0].seconds), (1, "RETRY", 1.5));
    }

    #[test]
    fn what_tasks_say_of_themselves_stands_at_their_tries_and_their_run_and_is_counted() {
        let board = Board::new(Box::new(StandingClock), TimeZone::UTC);
        let mut ears = board.clone();
        let task = TaskName::parse("1-a.sh");
        for number in 0..3 {
            let run = RunRef { chain: "a".into(), id: RunId::new("", number, 1), trigger: Trigger::of(TriggerKind::Now) };
            ears.tell(&run, &Event::RunStarted { tasks: 1 });
            ears.tell(&run, &Event::TaskStarted { task: &task, try_num: 1, max_tries: 1, at: jiff::Timestamp::UNIX_EPOCH });
            let said = (number > 0).then_some(Opinion::Warning);
            ears.tell(&run, &Event::TaskProgress { task: &task, percent: None, status: None, result: said, at: Moment::default() });
            assert_eq!(board.of_chain("a").running[0].tasks[0].said(), said.map(Opinion::word));
            ears.tell(&run, &Event::TaskEnded(&TaskEnd { said, ..end(Verdict::Ok, 0, b"") }));
            let said = said.map(|opinion| Gravest { opinion, task: task.clone(), others: 0 });
            ears.tell(&run, &Event::RunEnded { outcome: &RunOutcome::Done, duration: Duration::ZERO, started: 1, said: said.as_ref() });
        }
        let seen = board.of_chain("a");
        let [last, _, first] = &seen.ended[..] else { panic!("{:?}", seen.ended) };
        assert_eq!((first.doubt(), first.why.as_deref(), first.words().as_deref()), (None, None, Some("done")));
        assert_eq!((last.doubt(), last.why.as_deref()), (Some("warning"), Some("1-a.sh says warning")));
        assert_eq!(last.words().as_deref(), Some("done, says warning"));
        assert_eq!(seen.totals.said, [SaidTotal { said: "warning".into(), count: 2 }]);
    }

    #[test]
    fn only_the_last_runs_are_kept_and_all_are_counted() {
        let board = Board::new(Box::new(StandingClock), TimeZone::UTC);
        for number in 0..30 {
            let run = RunRef { chain: "a".into(), id: RunId::new("", number, 1), trigger: Trigger::of(TriggerKind::Schedule) };
            if number % 2 == 0 {
                board.not_begun(&run, "skipped", "the chain still runs");
            } else {
                let mut ears = board.clone();
                ears.tell(&run, &Event::RunStarted { tasks: 0 });
                ears.tell(&run, &Event::RunEnded { outcome: &RunOutcome::Done, duration: Duration::ZERO, started: 0, said: None });
            }
        }
        let seen = board.of_chain("a");
        assert_eq!((seen.ended.len(), seen.running.len()), (KEPT_RUNS, 0));
        assert_eq!(seen.totals.runs.iter().map(|total| total.count).collect::<Vec<_>>(), [15, 15]);
        assert!(seen.last_success.is_some());
    }

    #[test]
    fn what_did_not_begin_hides_no_run_that_did() {
        let board = Board::new(Box::new(StandingClock), TimeZone::UTC);
        let run = |number| RunRef { chain: "a".into(), id: RunId::new("", number, 1), trigger: Trigger::of(TriggerKind::Schedule) };
        let mut ears = board.clone();
        ears.tell(&run(0), &Event::RunStarted { tasks: 0 });
        (1..=100).for_each(|number| board.not_begun(&run(number), "skipped", "the chain still runs"));
        ears.tell(&run(0), &Event::RunEnded { outcome: &RunOutcome::Signalled(15), duration: Duration::ZERO, started: 0, said: None });
        (101..=200).for_each(|number| board.not_begun(&run(number), "lock", "it is held"));
        let seen = board.of_chain("a");
        assert!(seen.ended.iter().any(|run| run.outcome == Some(Ended::Signalled)) && seen.ended.len() == KEPT_UNBEGUN + 1);
        let given_up = seen.given_up.unwrap();
        assert_eq!((given_up.count, given_up.words().as_str()), (200, "200 runs refused since: it is held"));
        ears.tell(&run(300), &Event::RunStarted { tasks: 0 });
        assert_eq!(board.of_chain("a").given_up, None);
    }

    #[test]
    fn what_ran_before_and_elsewhere_stands_beside_what_runs_here() {
        let board = Board::new(Box::new(StandingClock), TimeZone::UTC);
        let now = StandingClock.wall();
        let date = |ago: i64| Date::new(now - jiff::SignedDuration::from_secs(ago), &TimeZone::UTC);
        let past_run = |id: &str, ago, outcome| {
            let trigger = Trigger::of(TriggerKind::Now);
            let run = RunRef { chain: "a".into(), id: RunId::new("", 99, 9), trigger };
            let begun = board.0.borrow().begun(&run);
            Run { id: id.to_owned(), started_at: date(ago), ended_at: Some(date(ago - 1)), outcome: Some(outcome), ..begun }
        };
        let given_up = |count, ago| Some(GivenUp { count, last_at: date(ago), reason: "skipped".into(), why: None });
        assert!(!board.remembers());
        let runs = vec![past_run("bad", 60, Ended::GaveUp), past_run("good", 90, Ended::Done)];
        let past = Past { running: Vec::new(), runs, last_success: Some(date(89)), given_up: given_up(7, 30) };
        board.remember(vec![("a".to_owned(), past.clone())]);
        let seen = board.of_chain("a");
        let ids = |seen: &OfChain| seen.ended.iter().map(|run| run.id.clone()).collect::<Vec<_>>();
        assert!(board.remembers());
        assert_eq!((ids(&seen), seen.last_success, seen.given_up), (vec!["bad".into(), "good".into()], Some(date(89)), given_up(7, 30)));
        let run = |number| RunRef { chain: "a".into(), id: RunId::new("", number, 1), trigger: Trigger::of(TriggerKind::Schedule) };
        board.not_begun(&run(1), "skipped", "the chain still runs");
        assert_eq!(board.of_chain("a").given_up.map(|given_up| given_up.count), Some(8));
        let mut ears = board.clone();
        ears.tell(&run(2), &Event::RunStarted { tasks: 0 });
        assert_eq!(board.of_chain("a").given_up, None, "since a run last began");
        ears.tell(&run(2), &Event::RunEnded { outcome: &RunOutcome::Done, duration: Duration::ZERO, started: 0, said: None });
        // The history has it by now, too: it is shown once, as it was seen here.
        let own = past_run(run(2).id.as_str(), 0, Ended::Done);
        let runs = [vec![Run { exit_code: Some(0), ..own }], past.runs.clone()].concat();
        board.remember(vec![("a".to_owned(), Past { runs, last_success: Some(date(0)), given_up: None, ..past })]);
        let seen = board.of_chain("a");
        assert_eq!((seen.last_success, seen.totals.runs.len(), ids(&seen).len()), (Some(date(0)), 2, 4));
        assert_eq!(seen.ended[0].exit_code, Some(0), "which is known to the history alone");
        // What was given up before a run that somebody else began counts no more.
        board.not_begun(&run(3), "skipped", "the chain still runs");
        let elsewhere = Run { outcome: None, ended_at: None, ..past_run("elsewhere", -1, Ended::Done) };
        board.remember(vec![("a".to_owned(), Past { running: vec![elsewhere], ..Past::default() })]);
        assert_eq!(board.of_chain("a").given_up, None);
    }
}
