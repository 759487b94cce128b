//! Tests of `record`: what is gathered of a run, and the pinned shape of version 1.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::rc::Rc;

use super::*;
use crate::clock::Moment;
use crate::names::{RunId, TaskName};
use crate::outcome::{GiveUp, LimitKind, ProcessEnd};
use crate::store::Owner;
use crate::trigger::{Trigger, TriggerKind};

/// A record as version 1 writes it. Never changed.
const PINNED: &str = r#"{"version":1,"run_id":"1f8e60d2-0-77804e1ae0716e17","chain":"main","trigger":"boot","scheduled_at":null,"host":"host","boot_id":"b","pid":7,"start_time":42,"began":"2026-11-21T07:22:12.000Z","ended":"2026-11-21T07:22:12.000Z","duration_ms":1500,"outcome":"gave_up","exit_code":1,"signal":null,"failed_task":"10-a.sh","message":"the tries are used up","tries":[{"task":"10-a.sh","try_num":1,"began":"2026-11-21T07:22:12.000Z","duration_ms":1000,"verdict":"RETRY","exit_code":null,"signal":null,"timed_out":"max_time","not_started":null,"left_behind":1,"output_tail":"no �x"}],"tries_left_out":0}"#;

struct StandingClock;

impl Clock for StandingClock {
    fn now(&self) -> Moment {
        Moment::default()
    }

    fn wall(&self) -> Timestamp {
        "2026-11-21T07:22:12.0004Z".parse().unwrap()
    }
}

#[derive(Default, Clone)]
struct Kept(Rc<RefCell<(Vec<RunRecord>, Vec<RunRecord>)>>);

impl Keeper for Kept {
    fn begun(&mut self, record: &RunRecord) {
        self.0.borrow_mut().0.push(record.clone());
    }

    fn ended(&mut self, record: RunRecord) {
        self.0.borrow_mut().1.push(record);
    }
}

fn recorder() -> (Recorder, Kept) {
    let owner = Owner { machine: String::new(), place: String::new(), host: "host".into(), boot_id: "b".into(), pid: 7, start_time: 42 };
    let kept = Kept::default();
    let facts = Facts { owner, exit_code: |outcome| u8::from(*outcome != RunOutcome::Done) };
    (Recorder::new(facts, Box::new(StandingClock), Box::new(kept.clone())), kept)
}

fn run(id: u64) -> RunRef {
    RunRef { chain: "main".into(), id: RunId::new("1f8e60d2", 0, id), trigger: Trigger::of(TriggerKind::Boot) }
}

fn name() -> TaskName {
    TaskName::parse(OsStr::new("10-a.sh"))
}

fn end(tail: &[u8], verdict: Verdict) -> TaskEnd {
    TaskEnd {
        task: name(),
        try_num: 1,
        max_tries: 1,
        exit: ExitKind::Ended(ProcessEnd::Code(0)),
        verdict,
        last: true,
        duration: Duration::from_secs(1),
        said: None,
        left_behind: Vec::new(),
        unkillable: false,
        tail: tail.to_vec(),
        tail_lost: 0,
        show_tail: false,
    }
}

#[test]
fn the_record_of_a_run_is_as_it_was_pinned() {
    let (mut recorder, kept) = recorder();
    let run = run(0x7780_4e1a_e071_6e17);
    recorder.tell(&run, &Event::RunStarted { tasks: 1 });
    recorder.tell(&run, &Event::TaskStarted { task: &name(), try_num: 1, max_tries: 1, at: StandingClock.wall() });
    let exit = ExitKind::TimedOut { limit: LimitKind::MaxTime, after: Duration::from_secs(1) };
    let failed = TaskEnd { exit, left_behind: vec![9], ..end(b"no \xffx", Verdict::Retry) };
    recorder.tell(&run, &Event::TaskEnded(&failed));
    let outcome = RunOutcome::GaveUp { why: GiveUp::Tries, task: Some(name()) };
    recorder.tell(&run, &Event::RunEnded { outcome: &outcome, duration: Duration::from_millis(1500), started: 1, said: None });
    let (begun, ended) = kept.0.take();
    assert_eq!((begun.len(), begun[0].outcome.clone(), begun[0].tries.len()), (1, None, 0));
    assert_eq!(serde_json::to_string(&ended[0]).unwrap(), PINNED);
    assert_eq!(serde_json::from_str::<RunRecord>(PINNED).unwrap(), ended[0]);
    assert!(ended[0].has_failed());
    let placed = RunRecord { place: "- pid:[1] time:[2]".into(), ..ended[0].clone() };
    let text = serde_json::to_string(&placed).unwrap();
    assert_eq!(text, PINNED.replace(r#""boot_id":"b","#, r#""boot_id":"b","place":"- pid:[1] time:[2]","#));
    assert_eq!(serde_json::from_str::<RunRecord>(&text).unwrap(), placed);
}

#[test]
fn a_record_with_fewer_and_with_more_fields_is_understood() {
    let least = r#"{"version":1,"run_id":"r","chain":"c","trigger":"now","host":"h","boot_id":"b","pid":1,"start_time":2,"began":"2026-11-21T07:22:12Z","added_later":[]}"#;
    let record: RunRecord = serde_json::from_str(least).unwrap();
    assert_eq!((record.outcome, record.ended, record.tries.len()), (None, None, 0));
}

#[test]
fn several_runs_go_on_side_by_side_and_each_has_its_occasion() {
    let (mut recorder, kept) = recorder();
    let slot: Timestamp = "2026-11-21T07:00:00Z".parse().unwrap();
    let of_slot = Trigger { kind: TriggerKind::Schedule, scheduled_at: Some(slot.to_zoned(jiff::tz::TimeZone::UTC)), window_ends: None };
    let (one, other) = (run(1), RunRef { trigger: of_slot, ..run(2) });
    for run in [&one, &other] {
        recorder.tell(run, &Event::RunStarted { tasks: 0 });
    }
    recorder.tell(&other, &Event::TaskEnded(&end(b"", Verdict::Ok)));
    for (run, outcome) in [(&one, RunOutcome::Signalled(15)), (&other, RunOutcome::Done)] {
        recorder.tell(run, &Event::RunEnded { outcome: &outcome, duration: Duration::ZERO, started: 0, said: None });
    }
    let ended = kept.0.take().1;
    assert_eq!((ended[0].trigger.as_str(), ended[0].signal, ended[0].exit_code, ended[0].tries.len()), ("boot", Some(15), None, 0));
    assert_eq!((ended[1].trigger.as_str(), ended[1].scheduled_at, ended[1].tries.len()), ("schedule", Some(slot), 1));
    assert_eq!(ended[0].message.as_deref(), Some("told to stop by SIGTERM"));
}

#[test]
fn in_the_pause_before_everything_begins_again_it_is_told_how_the_try_before_went() {
    let (mut recorder, _) = recorder();
    let run = run(1);
    recorder.tell(&run, &Event::RunStarted { tasks: 1 });
    let task = name();
    let begins = |try_num| Event::TaskStarted { task: &task, try_num, max_tries: 2, at: StandingClock.wall() };
    recorder.tell(&run, &begins(1));
    recorder.tell(&run, &Event::TaskEnded(&end(b"", Verdict::Retry)));
    recorder.tell(&run, &Event::RunRetry { wait: Duration::from_secs(20), try_num: 2, max_tries: 2 });
    let paused = recorder.describe(&run, None).unwrap();
    assert_eq!((paused.try_num, paused.until.is_some(), paused.tasks[0].tries[0].try_num), (2, true, 1));
    assert_eq!(paused.tasks[0].state, crate::status::TaskState::Failed);
    recorder.tell(&run, &begins(2));
    let goes_on = recorder.describe(&run, None).unwrap();
    assert_eq!((goes_on.tasks.len(), goes_on.tasks[0].tries[0].try_num, goes_on.until), (1, 2, None));
}

#[test]
fn what_a_task_says_of_itself_is_kept_with_its_try_and_its_run() {
    let (mut recorder, kept) = recorder();
    let run = run(1);
    recorder.tell(&run, &Event::RunStarted { tasks: 1 });
    recorder.tell(&run, &Event::TaskStarted { task: &name(), try_num: 1, max_tries: 1, at: StandingClock.wall() });
    let result = Some(Opinion::Warning);
    recorder.tell(&run, &Event::TaskProgress { task: &name(), percent: None, status: None, result, at: crate::clock::Moment::default() });
    assert_eq!(recorder.describe(&run, None).unwrap().tasks[0].said(), Some("warning"), "while it runs");
    recorder.tell(&run, &Event::TaskEnded(&TaskEnd { said: result, ..end(b"", Verdict::Ok) }));
    let said = Gravest { opinion: Opinion::Warning, task: name(), others: 0 };
    recorder.tell(&run, &Event::RunEnded { outcome: &RunOutcome::Done, duration: Duration::ZERO, started: 1, said: Some(&said) });
    let record = kept.0.take().1.remove(0);
    assert_eq!((record.said.as_deref(), record.message.as_deref()), (Some("warning"), Some("10-a.sh says warning")));
    assert_eq!(record.tries[0].said.as_deref(), Some("warning"));
    assert!(!record.has_failed(), "the exit code decides");
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<RunRecord>(&text).unwrap(), record);
}

#[test]
fn a_run_that_is_tried_for_weeks_has_a_record_of_bounded_length() {
    let (mut recorder, kept) = recorder();
    let run = run(1);
    recorder.tell(&run, &Event::RunStarted { tasks: 1 });
    let long = vec![b'x'; 64 * 1024];
    for _ in 0..MOST_TRIES + 5 {
        recorder.tell(&run, &Event::TaskEnded(&end(&long, Verdict::Retry)));
    }
    recorder.tell(&run, &Event::RunEnded { outcome: &RunOutcome::Done, duration: Duration::ZERO, started: 1, said: None });
    let record = kept.0.take().1.remove(0);
    let tails: Vec<usize> = record.tries.iter().map(|one| one.output_tail.len()).collect();
    assert_eq!((record.tries.len(), record.tries_left_out), (MOST_TRIES, 5));
    assert!(tails.iter().sum::<usize>() <= ALL_TAILS);
    assert_eq!((tails[0], tails[MOST_TRIES - 1]), (0, FAILED_TAIL), "the newest are worth most");
}

#[test]
fn a_tail_is_cut_between_characters_and_holds_no_nul() {
    assert_eq!(tail_text("aäöü".as_bytes(), 5), "öü");
    assert_eq!(tail_text(b"a\0b", 10), "a\u{fffd}b");
    assert_eq!(tail_text(b"", 10), "");
}
