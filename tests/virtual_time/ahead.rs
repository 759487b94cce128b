//! The moment before a slot is due: it is asked for then, and by its time it is ours. And the other side of the store, what has ended
//! and is written down.

use std::fs;
use std::sync::atomic::Ordering;

use jiff::{SignedDuration, Timestamp};
use rstest::rstest;
use runner::daemon::LEAD;

use crate::play::{HOUR, MINUTE, Machine, Play, at};
use crate::{EVERY_TEN, times};

/// Runs up to the moment in which the slot of 12:10 is ours and not due yet.
fn hold<'a>(machine: &'a Machine, mut play: Play<'a>) -> Play<'a> {
    play.run_until(&(at("2026-05-04T12:10:00Z") - LEAD).to_string());
    assert!(machine.store_has_slots(1), "it was asked for");
    assert_eq!(play.fired(), [""; 0], "it is not due yet");
    play
}

#[test]
fn a_slot_is_ours_before_it_is_due_and_begins_when_it_is() {
    let machine = Machine::new("2026-05-04T12:05:00Z", EVERY_TEN);
    let mut play = hold(&machine, machine.daemon());
    assert_eq!(machine.history("a"), [(at("2026-05-04T12:10:00Z"), "runs".to_owned())], "it is written down");
    play.wake();
    assert_eq!(play.fired(), [""; 0], "whoever is woken looks at the clock");
    play.run_until("2026-05-04T12:10:00Z");
    assert_eq!(play.fired(), ["a schedule 2026-05-04T12:10:00+00:00"]);
    assert_eq!(play.remembered(), 0);
    play.stop();
    assert_eq!(machine.history("a"), [(at("2026-05-04T12:10:00Z"), "done".to_owned())]);
}

#[test]
fn a_loop_that_comes_a_second_late_does_not_call_it_missed() {
    let machine = Machine::new("2026-05-04T12:05:00Z", EVERY_TEN);
    let mut play = hold(&machine, machine.daemon());
    play.pass(LEAD + SignedDuration::from_secs(1));
    play.wake();
    play.settle();
    assert_eq!(play.fired(), ["a schedule 2026-05-04T12:10:00+00:00"]);
}

#[rstest]
#[case::killed(false)]
#[case::stopped(true)]
fn a_slot_whose_daemon_ends_before_it_is_due_is_run_by_the_next_at_its_time(#[case] stopped: bool) {
    let machine = Machine::new("2026-05-04T11:55:00Z", EVERY_TEN);
    let mut play = machine.doomed_daemon();
    play.run_until("2026-05-04T12:00:00Z");
    assert_eq!(times(&play.fired()), ["12:00"]);
    let play = hold(&machine, play);
    if stopped {
        play.stop()
    } else {
        drop(play)
    }
    let mut play = machine.daemon();
    play.settle();
    play.wake();
    assert_eq!(play.fired(), [""; 0], "not before it is due");
    play.run_until("2026-05-04T12:20:00Z");
    assert_eq!(times(&play.fired()), ["12:10", "12:20"]);
    play.stop();
    assert!(machine.history("a").iter().all(|(_, outcome)| outcome == "done"), "{:?}", machine.history("a"));
}

#[rstest]
#[case::skip("skip", &[])]
#[case::last("last", &["13:00"])]
#[case::all("all", &["12:10", "12:20", "12:30", "12:40", "12:50", "13:00"])]
fn the_clock_jumps_an_hour_ahead_just_before_a_slot_is_due(#[case] missed: &str, #[case] expected: &[&str]) {
    let machine = Machine::new("2026-05-04T12:05:00Z", &format!("{EVERY_TEN}\nmissed = {missed}"));
    let mut play = hold(&machine, machine.daemon());
    play.jump(HOUR);
    let fired = play.fired();
    assert_eq!(times(&fired), expected);
    assert!(fired.iter().all(|line| line.starts_with("a missed ")), "{fired:?}");
    let given_up = usize::from(missed != "all");
    assert_eq!(play.refused().len(), given_up, "what was ours already is told one by one");
}

#[test]
fn the_clock_jumps_an_hour_back_just_before_a_slot_is_due() {
    let machine = Machine::new("2026-05-04T12:05:00Z", EVERY_TEN);
    let mut play = hold(&machine, machine.daemon());
    play.jump(-HOUR);
    play.run_until("2026-05-04T12:09:59Z");
    assert_eq!(play.fired(), [""; 0], "it is ours, and not due");
    play.run_until("2026-05-04T12:20:00Z");
    assert_eq!(times(&play.fired()), ["12:10", "12:20"]);
}

#[rstest]
#[case::gone("[chain:b]\nschedule = 0 0 29 2 *", &[], "skipped")]
#[case::another_schedule("[chain:a]\nschedule = 5 * * * *", &[], "skipped")]
#[case::no_schedule("[chain:a]", &[], "skipped")]
#[case::another_setting("[chain:a]\nschedule = */10 * * * *\nmax_tries = 9", &["12:10"], "done")]
fn a_configuration_that_changes_just_before_a_slot_is_due(#[case] config: &str, #[case] expected: &[&str], #[case] outcome: &str) {
    let machine = Machine::new("2026-05-04T12:05:00Z", EVERY_TEN);
    let mut play = hold(&machine, machine.daemon());
    machine.configure(config);
    play.files_changed();
    play.run_until("2026-05-04T12:10:00Z");
    assert_eq!(times(&play.fired()), expected);
    play.stop();
    assert_eq!(machine.history("a"), [(at("2026-05-04T12:10:00Z"), outcome.to_owned())], "it is told");
}

#[test]
fn a_store_that_answers_late_delays_a_slot_and_loses_none() {
    let machine = Machine::new("2026-05-04T12:05:00Z", EVERY_TEN);
    let mut play = machine.daemon();
    machine.away.store(true, Ordering::SeqCst);
    play.pass(at("2026-05-04T12:10:00Z").duration_since(machine.now()) - LEAD);
    play.wake();
    assert_eq!(play.armed(), Some(at("2026-05-04T12:10:00Z")));
    play.pass(LEAD);
    play.wake();
    assert_eq!((play.armed(), play.count()), (None, 0), "the answer wakes it, and nothing else");
    machine.away.store(false, Ordering::SeqCst);
    play.until(|play| play.count() == 1);
    assert_eq!(play.fired(), ["a schedule 2026-05-04T12:10:00+00:00"]);
}

#[test]
fn a_store_that_was_slow_is_asked_earlier_until_it_was_quick_for_a_while() {
    let machine = Machine::new("2026-05-04T12:05:00Z", EVERY_TEN);
    let mut play = machine.daemon();
    let millis = SignedDuration::from_millis;
    let next = |machine: &Machine| Timestamp::from_second((machine.now().as_second() / 600 + 1) * 600).unwrap();
    // Each time it is asked when the lead says, and answers after so long.
    for (took, lead) in [(40, 50), (100, 80), (3000, 200), (0, 250)] {
        let slot = next(&machine);
        assert_eq!(play.armed(), Some(slot - millis(lead)), "before it takes {took} ms");
        let slow = machine.pace.turn.lock().unwrap();
        play.pass((slot - millis(lead)).duration_since(machine.now()));
        play.wake();
        play.pass(millis(took));
        drop(slow);
        play.until_claimed();
        play.run_until(&slot.max(machine.now()).to_string());
        assert_eq!(play.fired().len(), 1, "{slot}");
    }
    for _ in 0..15 {
        assert_eq!(play.armed(), Some(next(&machine) - millis(250)), "it may be slow again");
        play.run_until(&next(&machine).to_string());
    }
    assert_eq!(play.armed(), Some(next(&machine) - LEAD), "it was quick sixteen times");
}

#[test]
fn the_ends_of_many_runs_are_written_together() {
    const CHAINS: usize = 8;
    let names: Vec<String> = (0..CHAINS).map(|number| format!("c{number}")).collect();
    let config: String = names.iter().map(|name| format!("[chain:{name}]\nschedule = */10 * * * *\n")).collect();
    let machine = Machine::new("2026-05-04T12:05:00Z", &config);
    // Each waits for somebody who opens the other end.
    let machine = names.iter().fold(machine, |machine, name| machine.task(name, &format!(": < $SCENE/{name}/go")));
    let go = |name: &String| machine.path(name).join("go");
    names.iter().for_each(|name| rustix::fs::mknodat(rustix::fs::CWD, go(name), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap());
    let mut play = machine.daemon();
    play.pass(5 * MINUTE);
    play.wake();
    play.until(|play| play.count() == CHAINS);
    // The first that has ended is written at once; the others end meanwhile, one after the other.
    let slow = machine.pace.turn.lock().unwrap();
    for (ended, name) in names.iter().enumerate() {
        drop(fs::OpenOptions::new().write(true).open(go(name)).unwrap());
        play.until(|play| play.remembered() == CHAINS - ended - 1);
    }
    drop(slow);
    play.settle();
    let written = machine.pace.written.lock().unwrap().clone();
    assert_eq!(written.iter().filter(|doing| doing.contains("record of a run")).count(), 2, "{written:?}");
    assert!(names.iter().all(|name| machine.history(name)[0].1 == "done"));
    play.stop();
}
