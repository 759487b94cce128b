//! What every database of runner has to do: one suite, run on each engine. Each part uses chains and machines of its own.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use runner::store::record::{Occasion, RunRecord, TryRecord};
use runner::store::{CLUSTER, HistoryQuery, Owner, Retention, Slot, SlotClaim, SlotKey, Store};

/// A moment of this test, some seconds after its beginning.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds).unwrap()
}

pub(crate) fn owner(machine: &str) -> Owner {
    Owner {
        machine: machine.into(),
        place: "- pid:[1] time:[2]".into(),
        host: format!("host of {machine}"),
        boot_id: "boot".into(),
        pid: 12,
        start_time: 34,
    }
}

pub(crate) fn claim(machine: &str, chain: &str, seconds: i64, run_id: &str) -> SlotClaim {
    SlotClaim { key: SlotKey { machine: machine.into(), chain: chain.into(), slot: Slot::At(at(seconds)) }, run_id: run_id.into() }
}

/// A run that has begun.
pub(crate) fn begun(run_id: &str, chain: &str, seconds: i64) -> RunRecord {
    let occasion = Occasion { trigger: "schedule".into(), scheduled_at: Some(at(seconds)) };
    RunRecord::begun(run_id, chain, occasion, &owner("m"), at(seconds))
}

/// The same, ended so.
pub(crate) fn ended(record: RunRecord, outcome: &str) -> RunRecord {
    let ended = record.began + SignedDuration::from_millis(1500);
    RunRecord { ended: Some(ended), duration_ms: Some(1500), outcome: Some(outcome.into()), exit_code: Some(0), ..record }
}

fn all(chain: &str) -> HistoryQuery {
    HistoryQuery { chain: Some(chain.into()), failed: false, limit: 1000 }
}

fn ids(runs: Vec<RunRecord>) -> Vec<String> {
    runs.into_iter().map(|run| run.run_id).collect()
}

/// The whole suite.
pub(crate) fn fulfils_the_contract(store: &mut dyn Store) {
    a_slot_is_used_once(store);
    a_boot_is_used_once_for_each_chain(store);
    marks_never_go_back(store);
    a_slot_waits_until_its_run_begins(store);
    a_run_that_begins_with_its_claim_may_be_given_back(store);
    a_run_is_kept_from_its_beginning_to_its_end(store);
    history_is_newest_first(store);
    a_run_is_found_by_its_beginning(store);
    crate::contract_jobs::jobs_fulfil_the_contract(store);
    // Last: they forget what the others left.
    old_runs_are_forgotten(store);
    forgotten_slots_stay_used(store);
}

fn a_slot_is_used_once(store: &mut dyn Store) {
    let me = owner("slots");
    let mine: Vec<_> = (0..120).map(|second| claim("slots", "nightly", second, "mine")).collect();
    assert!(store.claim_slots(&mine, &me, at(0)).unwrap().iter().all(|ours| *ours), "nobody had them, and more than one statement takes");
    assert_eq!(store.claim_slots(&mine[..2], &me, at(1)).unwrap(), [true, true], "asked again after a lost answer");
    let theirs = [
        claim("slots", "nightly", 3, "theirs"),
        claim("slots", "nightly", 500, "theirs"),
        claim("slots", "other", 3, "theirs"),
        claim("another machine", "nightly", 3, "theirs"),
        claim("slots", "nightly", 500, "again"),
    ];
    assert_eq!(store.claim_slots(&theirs, &me, at(2)).unwrap(), [false, true, true, true, false]);
    assert_eq!(store.claim_slots(&[], &me, at(3)).unwrap(), [true; 0]);
    assert_eq!(store.newest_time(&me).unwrap(), Some(at(3)));
}

fn a_boot_is_used_once_for_each_chain(store: &mut dyn Store) {
    let boot = |chain: &str, id: &str, run_id: &str| {
        let key = SlotKey { machine: CLUSTER.into(), chain: chain.into(), slot: Slot::Boot(id.into()) };
        SlotClaim { key, run_id: run_id.into() }
    };
    let claims = [boot("a", "one", "r1"), boot("b", "one", "r2"), boot("a", "two", "r3"), boot("a", "one", "r4")];
    assert_eq!(store.claim_slots(&claims, &owner("boots"), at(0)).unwrap(), [true, true, true, false]);
}

fn marks_never_go_back(store: &mut dyn Store) {
    let me = owner("marks");
    assert_eq!((store.watermarks("marks").unwrap(), store.newest_time(&me).unwrap()), (Vec::new(), None));
    let marks = |pairs: &[(&str, i64)]| pairs.iter().map(|(chain, second)| ((*chain).to_owned(), at(*second))).collect::<Vec<_>>();
    store.set_watermarks("marks", &marks(&[("b", 5), ("a", 7), ("a", 6)]), &me, at(10)).unwrap();
    store.set_watermarks("marks", &marks(&[("b", 9), ("a", 3)]), &me, at(8)).unwrap();
    assert_eq!(store.watermarks("marks").unwrap(), marks(&[("a", 7), ("b", 9)]));
    assert_eq!(store.newest_time(&me).unwrap(), Some(at(10)), "a clock that was set back is not believed");
    assert!(store.watermarks("of nobody").unwrap().is_empty());
}

fn a_slot_waits_until_its_run_begins(store: &mut dyn Store) {
    let me = owner("waits");
    let claims = [claim("waits", "c", 1, "w1"), claim("waits", "c", 2, "w2"), claim("waits", "c", 3, "w3")];
    store.claim_slots(&claims, &me, at(4)).unwrap();
    let waiting = store.waiting_slots(&me.host).unwrap();
    assert_eq!(waiting.iter().map(|slot| slot.claim.clone()).collect::<Vec<_>>(), claims);
    assert_eq!((waiting[0].owner.clone(), waiting[0].claimed_at), (me.clone(), at(4)));
    store.put_runs(&[begun("w1", "c", 1)]).unwrap();
    store.put_runs(&[begun("w2", "c", 2).not_begun("skipped", "the one before still ran")]).unwrap();
    assert_eq!(store.waiting_slots(&me.host).unwrap().len(), 1, "a run began, a slot was given up: both are used");
    let heir = Owner { pid: 99, ..me.clone() };
    assert!(!store.take_over_slot(&claims[0], "heir", &heir, at(5)).unwrap(), "its run has begun");
    assert!(store.take_over_slot(&claims[2], "heir", &heir, at(5)).unwrap());
    assert!(store.take_over_slot(&claims[2], "heir", &heir, at(5)).unwrap(), "asked again after a lost answer");
    assert!(!store.take_over_slot(&claims[2], "too late", &me, at(6)).unwrap());
    let waiting = store.waiting_slots(&me.host).unwrap();
    assert_eq!((waiting[0].claim.run_id.as_str(), waiting[0].owner.pid), ("heir", 99));
    assert_eq!(store.claim_slots(&[claim("waits", "c", 3, "w3")], &me, at(7)).unwrap(), [false], "it is the heir's now");
}

fn a_run_that_begins_with_its_claim_may_be_given_back(store: &mut dyn Store) {
    let me = owner("begins");
    let claims = [claim("begins", "c", 1, "b1"), claim("begins", "c", 2, "b2"), claim("begins", "c", 3, "b3")];
    store.claim_slots(&[claim("begins", "c", 2, "other")], &me, at(4)).unwrap();
    let runs = [RunRecord { host: me.host.clone(), ..begun("b1", "c", 1) }, RunRecord { host: me.host.clone(), ..begun("b2", "c", 2) }];
    for _ in 0..2 {
        assert_eq!(store.claim_and_begin(&claims, &runs, &me, at(4)).unwrap(), [true, false, true], "asked again after a lost answer");
    }
    assert_eq!(ids(store.open_runs(&me.host).unwrap()), ["b1"], "who has no slot does not begin, and who waits has not begun");
    let waiting =
        |store: &mut dyn Store| store.waiting_slots(&me.host).unwrap().into_iter().map(|slot| slot.claim.run_id).collect::<Vec<_>>();
    assert_eq!(waiting(store), ["other", "b3"]);
    store.give_back(&["b1".into(), "b3".into(), "nobody".into()]).unwrap();
    assert_eq!((store.run("b1").unwrap(), waiting(store).len()), (None, 3));
    store.put_runs(&[ended(runs[0].clone(), "done")]).unwrap();
    store.give_back(&["b1".into()]).unwrap();
    assert_eq!(waiting(store).len(), 2, "what has ended was used");
}

fn a_run_is_kept_from_its_beginning_to_its_end(store: &mut dyn Store) {
    let start = begun("kept", "kept chain", 10);
    store.put_runs(std::slice::from_ref(&start)).unwrap();
    assert_eq!(store.run("kept").unwrap(), Some(start.clone()));
    assert!(store.open_runs(&start.host).unwrap().contains(&start));
    let tries = (1..=120).map(|number| TryRecord {
        task: "10-ünïcode ' \".sh".into(),
        try_num: number,
        began: at(10),
        duration_ms: u64::from(number),
        verdict: "RETRY".into(),
        exit_code: (number % 2 == 0).then_some(255),
        signal: (number % 2 == 1).then_some(9),
        timed_out: Some("max_time".into()),
        not_started: Some("why \\ not".into()),
        left_behind: 3,
        output_tail: "two\nlines \u{1b}[31m\t%s".into(),
        said: (number % 3 == 0).then(|| "warning".into()),
    });
    let end = RunRecord {
        tries: tries.collect(),
        tries_left_out: 7,
        failed_task: Some("10-x".into()),
        message: Some("m".into()),
        said: Some("error".into()),
        signal: Some(15),
        ..ended(start.clone(), "gave_up")
    };
    store.put_runs(std::slice::from_ref(&end)).unwrap();
    assert_eq!(store.run("kept").unwrap(), Some(end.clone()), "with all that is known of it");
    assert!(!store.open_runs(&start.host).unwrap().iter().any(|run| run.run_id == "kept"));
    store.put_runs(&[start, ended(begun("kept", "kept chain", 10), "done"), end.clone()]).unwrap();
    assert_eq!(store.run("kept").unwrap(), Some(end), "an end stays");
    let odd = RunRecord { message: Some("a\0b".into()), ..ended(begun("odd", "kept chain", 11), "done") };
    store.put_runs(&[odd]).unwrap();
    assert_eq!(store.run("odd").unwrap().unwrap().message.as_deref(), Some("a\u{fffd}b"));
    assert_eq!(store.run("nobody").unwrap(), None);
    for (id, later, told) in [("at once", 6, 0), ("waited", 5000, 5000)] {
        store.put_runs(&[begun(id, "kept chain", 12)]).unwrap();
        let begins = |millis| at(12) + SignedDuration::from_millis(millis);
        let end = ended(RunRecord { began: begins(later), ..begun(id, "kept chain", 12) }, "done");
        store.put_runs(&[end]).unwrap();
        assert_eq!(store.run(id).unwrap().unwrap().began, begins(told), "{id}: when it began is told once, unless it had to wait");
    }
}

fn history_is_newest_first(store: &mut dyn Store) {
    let outcomes = ["done", "gave_up", "skipped", "halted", "refused", "crashed", "done"];
    let mut runs: Vec<_> = (0..).zip(outcomes).map(|(n, outcome)| ended(begun(&format!("h{n}"), "past", 100 + n), outcome)).collect();
    runs.push(begun("h7", "past", 106));
    store.put_runs(&runs).unwrap();
    assert_eq!(ids(store.runs(&all("past")).unwrap()), ["h7", "h6", "h5", "h4", "h3", "h2", "h1", "h0"]);
    assert_eq!(ids(store.runs(&HistoryQuery { limit: 2, ..all("past") }).unwrap()), ["h7", "h6"]);
    let failed = HistoryQuery { failed: true, ..all("past") };
    assert_eq!(ids(store.runs(&failed).unwrap()), ["h5", "h4", "h3", "h1"]);
    let of_all = store.runs(&HistoryQuery { chain: None, failed: false, limit: 3 }).unwrap();
    assert_eq!((of_all.len(), of_all[0].run_id.as_str()), (3, "h7"), "chains together, and nothing is newer");
    let all_failed = store.runs(&HistoryQuery { chain: None, failed: true, limit: 1 }).unwrap();
    assert_eq!(ids(all_failed), ["h5"]);
    assert!(store.runs(&all("of nobody")).unwrap().is_empty());
}

fn a_run_is_found_by_its_beginning(store: &mut dyn Store) {
    let names = ["F-1", "f-1", "f-10", "f-2", "f_1", "f%1"];
    let runs: Vec<_> = names.iter().map(|name| begun(name, "found", 0)).collect();
    store.put_runs(&runs).unwrap();
    assert_eq!(store.find_runs("f-", 10).unwrap(), ["f-1", "f-10", "f-2"], "by bytes, whatever the server's language is");
    assert_eq!(store.find_runs("f-1", 10).unwrap(), ["f-1", "f-10"]);
    assert_eq!(store.find_runs("f-", 2).unwrap(), ["f-1", "f-10"]);
    assert_eq!(store.find_runs("f%", 10).unwrap(), ["f%1"], "no pattern");
    assert!(store.find_runs("f' OR 1=1 --", 10).unwrap().is_empty());
    assert!(store.find_runs("", 100).unwrap().len() >= names.len());
}

fn old_runs_are_forgotten(store: &mut dyn Store) {
    let long = Duration::from_secs(1_000_000_000);
    let open: Vec<_> = store.open_runs(&owner("m").host).unwrap().into_iter().map(|run| ended(run, "done")).collect();
    store.put_runs(&open).unwrap();
    while store.prune_runs(Retention { runs: 0, age: long }, at(0), 100).unwrap() > 0 {}
    let open = begun("open", "old", 0);
    let mut runs: Vec<_> = (1..=10).map(|n| ended(begun(&format!("o{n:02}"), "old", n * 10), "done")).collect();
    runs[0].tries = vec![TryRecord {
        task: "t".into(),
        try_num: 1,
        began: at(0),
        duration_ms: 1,
        verdict: "OK".into(),
        exit_code: Some(0),
        signal: None,
        timed_out: None,
        not_started: None,
        left_behind: 0,
        output_tail: String::new(),
        said: None,
    }];
    runs.push(open);
    store.put_runs(&runs).unwrap();
    let keep = |runs, seconds| Retention { runs, age: Duration::from_secs(seconds) };
    assert_eq!(store.prune_runs(Retention { runs: 100, age: Duration::MAX }, at(0), 100).unwrap(), 0);
    assert_eq!(store.prune_runs(keep(8, 1_000_000), at(100), 1).unwrap(), 1, "in small bites, the oldest first");
    assert_eq!(store.run("o01").unwrap(), None);
    assert_eq!(store.prune_runs(keep(8, 1_000_000), at(100), 100).unwrap(), 1);
    assert_eq!(store.prune_runs(keep(8, 1_000_000), at(100), 100).unwrap(), 0);
    assert_eq!(store.prune_runs(keep(100, 45), at(100), 100).unwrap(), 3, "those from before 45 seconds ago");
    assert_eq!(ids(store.runs(&all("old")).unwrap()), ["o10", "o09", "o08", "o07", "o06", "open"], "what has no end stays");
    // The tries went with their run: one with its id that comes later has none of them.
    store.put_runs(&[ended(begun("o01", "old", 200), "done")]).unwrap();
    assert!(store.run("o01").unwrap().unwrap().tries.is_empty());
}

fn forgotten_slots_stay_used(store: &mut dyn Store) {
    let me = owner("pruned");
    let claims: Vec<_> = (0..10).map(|n| claim("pruned", "c", n - 2_000_000, "r")).collect();
    let boot = SlotClaim { key: SlotKey { machine: "pruned".into(), chain: "c".into(), slot: Slot::Boot("b".into()) }, run_id: "r".into() };
    store.claim_slots(&claims, &me, at(0)).unwrap();
    store.claim_slots(std::slice::from_ref(&boot), &me, at(0)).unwrap();
    let before = at(-1_999_995);
    assert_eq!(store.prune_slots(before, 3).unwrap(), 3, "in small bites");
    let again: Vec<_> = claims.iter().map(|claim| SlotClaim { run_id: "again".into(), ..claim.clone() }).collect();
    assert!(store.claim_slots(&again, &me, at(0)).unwrap().iter().all(|ours| !ours), "forgotten or not, all are used");
    assert_eq!(store.prune_slots(before, 100).unwrap(), 2);
    assert_eq!(store.prune_slots(at(-3_000_000), 100).unwrap(), 0);
    assert!(store.claim_slots(&again, &me, at(0)).unwrap().iter().all(|ours| !ours));
    assert_eq!(store.claim_slots(&[SlotClaim { run_id: "x".into(), ..boot }], &me, at(0)).unwrap(), [false], "a boot is not forgotten");
    assert_eq!(store.claim_slots(&[claim("pruned", "c", -1_999_990, "new")], &me, at(0)).unwrap(), [true], "what comes after is free");
}
