//! Tests of `spool`: what is left is taken in once, and nothing that lies there does harm.

use std::os::unix::fs::PermissionsExt;

use jiff::Timestamp;

use super::*;
use crate::store::record::{Occasion, TryRecord};
use crate::store::sqlite::Sqlite;
use crate::store::{HistoryQuery, Owner};

fn record(number: i64) -> RunRecord {
    let owner =
        Owner { machine: String::new(), place: "- pid:[1] time:[2]".into(), host: "h".into(), boot_id: "b".into(), pid: 1, start_time: 1 };
    let at = Timestamp::from_second(1_700_000_000 + number).unwrap();
    let occasion = Occasion { trigger: "boot".into(), scheduled_at: None };
    RunRecord { outcome: Some("done".into()), ended: Some(at), ..RunRecord::begun(&format!("run-{number}"), "main", occasion, &owner, at) }
}

const ALL: HistoryQuery = HistoryQuery { chain: None, failed: false, limit: 100 };

#[test]
fn what_is_left_is_taken_in_once() {
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("deep/state");
    let spool = Spool::new(&state, 100);
    assert!(spool.read_all().unwrap().is_empty(), "no directory, no records");
    let mut keeper = SpoolKeeper::new(spool.clone());
    (0..3).for_each(|number| keeper.ended(record(number)));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(spool.dir())), (0o700, 0o700));
    let files: Vec<PathBuf> = fs::read_dir(spool.dir()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 3, "and nothing beside them");
    assert!(files.iter().all(|file| mode(file) == 0o600));
    let mut store = Sqlite::open(&home.path().join("runner.db")).unwrap();
    // As if another process had taken one in, and died before it took the file away.
    store.put_runs(&[record(1)]).unwrap();
    assert_eq!(spool.take_in(&mut store).unwrap(), 3);
    let ids: Vec<String> = store.runs(&ALL).unwrap().into_iter().map(|run| run.run_id).collect();
    assert_eq!(ids, ["run-2", "run-1", "run-0"]);
    assert_eq!((fs::read_dir(spool.dir()).unwrap().count(), spool.take_in(&mut store).unwrap()), (0, 0));
}

#[test]
fn each_configuration_takes_in_its_own_records_and_those_of_nobody() {
    let home = tempfile::tempdir().unwrap();
    let spool = |config: &str, database: &str| {
        let source = Source { config_file: Some(config.into()), database: Some(database.to_owned()) };
        Spool::new(home.path(), 100).of(source)
    };
    let left = |spool: Spool, number| SpoolKeeper::new(spool).ended(record(number));
    left(spool("/a.cfg", "sqlite:/a.db"), 0);
    left(spool("/b.cfg", "sqlite:/b.db"), 1);
    left(spool("/other-name-of-b.cfg", "sqlite:/b.db"), 2);
    left(spool("/b.cfg", "sqlite:/where-b-was.db"), 3);
    // As an older program leaves it.
    left(Spool::new(home.path(), 100), 4);
    assert_eq!(spool("/b.cfg", "sqlite:/b.db").read_all().unwrap().len(), 4);
    let mut store = Sqlite::open(&home.path().join("b.db")).unwrap();
    assert_eq!(spool("/b.cfg", "sqlite:/b.db").take_in(&mut store).unwrap(), 4);
    assert!(store.run("run-0").unwrap().is_none());
    assert_eq!(spool("/a.cfg", "sqlite:/a.db").read_all().unwrap()[0].run_id, "run-0", "it waits for its own");
}

#[test]
fn a_broken_file_is_set_aside_and_one_of_a_newer_program_stays() {
    let home = tempfile::tempdir().unwrap();
    let spool = Spool::new(home.path(), 100);
    SpoolKeeper::new(spool.clone()).ended(record(0));
    fs::write(spool.dir().join("1.json"), "{\"version\":1").unwrap();
    fs::write(spool.dir().join("2.json"), "{\"version\":2,\"all\":\"is new\"}").unwrap();
    fs::write(spool.dir().join(".3.json"), "half").unwrap();
    fs::write(spool.dir().join("note.txt"), "mine").unwrap();
    assert_eq!(spool.read_all().unwrap().len(), 1);
    let mut store = Sqlite::open(&home.path().join("runner.db")).unwrap();
    assert_eq!(spool.take_in(&mut store).unwrap(), 1);
    let mut left: Vec<_> = fs::read_dir(spool.dir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, [".3.json", "1.broken", "2.json", "note.txt"]);
}

#[test]
fn a_record_that_never_reached_the_disk_is_nothing() {
    let home = tempfile::tempdir().unwrap();
    let spool = Spool::new(home.path(), 100);
    SpoolKeeper::new(spool.clone()).ended(record(0));
    fs::write(spool.dir().join("1.json"), "").unwrap();
    assert_eq!(spool.read_all().unwrap().len(), 1);
    let mut store = Sqlite::open(&home.path().join("runner.db")).unwrap();
    assert_eq!(spool.take_in(&mut store).unwrap(), 1);
    assert_eq!(fs::read_dir(spool.dir()).unwrap().count(), 0, "neither stays, nor is it set aside");
}

#[test]
fn what_failed_is_on_the_disk_before_the_run_goes_on() {
    let tried = |outcome: Option<&str>, tries: usize| {
        let try_record = TryRecord {
            task: "a".into(),
            try_num: 1,
            began: Timestamp::UNIX_EPOCH,
            duration_ms: 1,
            verdict: "OK".into(),
            exit_code: Some(0),
            signal: None,
            timed_out: None,
            not_started: None,
            left_behind: 0,
            output_tail: String::new(),
            said: None,
        };
        RunRecord { outcome: outcome.map(str::to_owned), tries: vec![try_record; tries], ..record(0) }
    };
    for (outcome, tries, durable) in [
        (Some("done"), 0, Durable::Nothing),
        (Some("done"), 1, Durable::Text),
        (Some("failed"), 1, Durable::Name),
        (Some("refused"), 0, Durable::Name),
        (None, 0, Durable::Text),
    ] {
        assert_eq!(Durable::of(&tried(outcome, tries)), durable, "{outcome:?} {tries}");
    }
}

#[test]
fn where_nobody_takes_the_records_in_the_oldest_go() {
    let home = tempfile::tempdir().unwrap();
    let spool = Spool::new(home.path(), 3);
    let mut keeper = SpoolKeeper::new(spool.clone());
    (0..6).for_each(|number| keeper.ended(record(number)));
    let kept = merged(Vec::new(), spool.read_all().unwrap(), &ALL);
    assert_eq!(kept.iter().map(|run| run.run_id.as_str()).collect::<Vec<_>>(), ["run-5", "run-4", "run-3"]);
}

#[test]
fn what_is_stored_and_what_is_left_are_one_history() {
    let failed = RunRecord { outcome: Some("gave_up".into()), ..record(2) };
    let all = merged(vec![record(3), record(1)], vec![record(1), failed.clone()], &ALL);
    assert_eq!(all.iter().map(|run| run.run_id.as_str()).collect::<Vec<_>>(), ["run-3", "run-2", "run-1"]);
    let some = merged(Vec::new(), vec![record(1), failed], &HistoryQuery { chain: Some("main".into()), failed: true, limit: 1 });
    assert_eq!(some.len(), 1);
    assert!(merged(Vec::new(), vec![record(1)], &HistoryQuery { chain: Some("other".into()), failed: false, limit: 9 }).is_empty());
}

#[test]
fn a_disk_that_takes_nothing_costs_a_warning_and_no_more() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("runs"), "a file where the directory should be").unwrap();
    let mut keeper = SpoolKeeper::new(Spool::new(home.path(), 3));
    assert!(keeper.leave_in_time(record(0)).is_err());
    keeper.ended(record(0));
}

#[test]
fn a_beginning_is_taken_in_before_its_end_and_never_instead_of_it() {
    let home = tempfile::tempdir().unwrap();
    let spool = Spool::new(home.path(), 100);
    let mut store = Sqlite::open(&home.path().join("runner.db")).unwrap();
    let end = record(1);
    let begun = RunRecord { outcome: None, ended: None, ..end.clone() };
    let files = || fs::read_dir(spool.dir()).unwrap().count();
    let mut silent = SpoolKeeper::new(spool.clone());
    silent.begun(&begun);
    assert!(spool.read_all().unwrap().is_empty(), "only who is asked to notes that");
    let mut keeper = SpoolKeeper::new(spool.clone()).noting_begun();
    keeper.begun(&begun);
    assert_eq!((spool.read_all().unwrap(), spool.take_in(&mut store).unwrap(), files()), (vec![begun.clone()], 1, 0));
    keeper.ended(end.clone());
    // The database has no end yet, and what lies beside it has.
    let all = merged(store.runs(&ALL).unwrap(), spool.read_all().unwrap(), &ALL);
    assert_eq!(all, std::slice::from_ref(&end));
    assert_eq!((spool.take_in(&mut store).unwrap(), store.runs(&ALL).unwrap().len()), (1, 1));
    assert_eq!(store.run(&end.run_id).unwrap().unwrap().outcome.as_deref(), Some("done"));
    keeper.begun(&begun);
    keeper.ended(end.clone());
    assert_eq!((files(), spool.read_all().unwrap()), (1, vec![end.clone()]));
    // Killed between the two: both are there.
    keeper.begun(&begun);
    assert_eq!((files(), spool.read_all().unwrap()), (2, vec![end]));
}
