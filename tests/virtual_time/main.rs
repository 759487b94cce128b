//! The daemon in virtual time: clocks that jump, nights on which they change, stores that go away. One program, one test at a
//! time; none of them waits for a minute to pass.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "in a test a surprise is a failure, and a thread only watches for one that waits for ever"
)]

mod ahead;
mod changes;
mod play;
mod queue;

use std::fs;
use std::sync::atomic::Ordering;

use jiff::SignedDuration;
use play::{HOUR, MINUTE, Machine, Play, at};
use rstest::rstest;
use runner::daemon::LEAD;

const EVERY_TEN: &str = "[chain:a]\nschedule = */10 * * * *";
const NOON: &str = "2026-05-04T12:00:00Z";

/// The times of day of slots of one chain, as `12:10`.
fn times(fired: &[String]) -> Vec<String> {
    fired.iter().map(|line| line.rsplit_once('T').unwrap().1[..5].to_owned()).collect()
}

impl Play<'_> {
    /// Time passes, and the daemon looks at its clocks.
    fn wake_after(&mut self, by: SignedDuration) {
        self.pass(by);
        self.wake();
    }
}

#[test]
fn it_wakes_when_something_is_due_and_at_no_other_time() {
    let machine = Machine::new("2026-05-04T00:30:00Z", "[chain:a]\nschedule = 0 * * * *\n[chain:b]\nschedule = 0 12 * * *");
    let mut play = machine.daemon();
    play.run_until("2026-05-05T00:30:00Z");
    let fired = play.fired();
    assert_eq!(fired.len(), 25);
    assert_eq!(fired.iter().filter(|line| **line == "b schedule 2026-05-04T12:00:00+00:00").count(), 1);
    assert_eq!(play.wakes, 2 * 24, "each hour when it is due, and a moment before, to ask for it");
}

// ---- clocks that jump ------------------------------------------------------------------------------

#[rstest]
#[case::skip("skip", &["13:00"])]
#[case::last("last", &["13:00"])]
#[case::all("all", &["12:10", "12:20", "12:30", "12:40", "12:50", "13:00"])]
fn the_clock_jumps_an_hour_ahead(#[case] missed: &str, #[case] expected: &[&str]) {
    let machine = Machine::new(NOON, &format!("{EVERY_TEN}\nmissed = {missed}"));
    let mut play = machine.daemon();
    play.jump(HOUR);
    assert_eq!(times(&play.fired()), expected);
    play.run_until("2026-05-04T13:10:00Z");
    assert_eq!(times(&play.fired()), ["13:10"]);
}

#[rstest]
#[case::skip("skip", &[])]
#[case::last("last", &["13:00"])]
#[case::all("all", &["12:10", "12:20", "12:30", "12:40", "12:50", "13:00"])]
fn the_clock_jumps_to_where_nothing_is_due_now(#[case] missed: &str, #[case] expected: &[&str]) {
    let machine = Machine::new(NOON, &format!("{EVERY_TEN}\nmissed = {missed}"));
    let mut play = machine.daemon();
    play.jump(HOUR + 5 * MINUTE);
    let fired = play.fired();
    assert_eq!(times(&fired), expected);
    assert!(fired.iter().all(|line| line.starts_with("a missed ")), "{fired:?}");
}

#[test]
fn the_clock_jumps_an_hour_back() {
    let machine = Machine::new("2026-05-04T11:59:30Z", EVERY_TEN);
    let mut play = machine.daemon();
    play.run_until("2026-05-04T12:15:00Z");
    assert_eq!(times(&play.fired()), ["12:00", "12:10"]);
    play.jump(-HOUR);
    play.run_until("2026-05-04T12:19:59Z");
    assert_eq!(play.fired(), [""; 0], "these slots were used, and this is no clock before the newest stored time");
    play.run_until("2026-05-04T12:20:00Z");
    assert_eq!(times(&play.fired()), ["12:20"]);
}

#[test]
fn who_asks_a_daemon_for_a_tick_has_what_has_come_and_nothing_of_what_is_to_come() {
    // One slot in this minute, which lies ahead; a tick of its own would take it.
    let machine = Machine::new("2026-05-04T12:01:10Z", "[chain:a]\nschedule = every 90s");
    let mut play = machine.daemon();
    assert_eq!(play.ask_for_a_tick(), 0);
    play.run_until("2026-05-04T12:01:30Z");
    assert_eq!(play.fired(), ["a schedule 2026-05-04T12:01:30+00:00"]);
    // It has come, and the daemon has not looked yet.
    machine.set("2026-05-04T12:03:00Z");
    assert_eq!(play.ask_for_a_tick(), 1);
    play.settle();
    assert_eq!(play.fired(), ["a tick 2026-05-04T12:03:00+00:00"], "and it is begun once");
}

#[test]
fn a_suspend_of_a_night_looks_back_as_far_as_the_window() {
    let machine = Machine::new(NOON, &format!("{EVERY_TEN}\nmissed = all\nmissed_window = 30min"));
    let mut play = machine.daemon();
    play.jump(8 * HOUR + 5 * MINUTE);
    assert_eq!(times(&play.fired()), ["19:40", "19:50", "20:00"]);
}

#[test]
fn a_hundred_missed_slots_run_one_after_the_other_and_no_more() {
    let machine = Machine::new(NOON, "[chain:a]\nschedule = * * * * *\nmissed = all").task("a", "mkdir $SCENE/alone && rmdir $SCENE/alone");
    let mut play = machine.daemon();
    play.jump(150 * MINUTE);
    let fired = play.fired();
    assert_eq!((fired.len(), times(&fired)[0].as_str(), times(&fired)[99].as_str()), (100, "12:51", "14:30"));
    assert!(times(&fired).is_sorted());
    play.stop();
    assert!(machine.history("a").iter().all(|(_, outcome)| outcome == "done"), "two ran side by side");
}

// ---- nights on which clocks change -----------------------------------------------------------------

#[rstest]
#[case::prague_spring("Europe/Prague", "30 2 * * *", "2026-03-28T12:00Z", &["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"])]
#[case::prague_autumn("Europe/Prague", "30 2 * * *", "2026-10-24T12:00Z", &["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"])]
#[case::new_york_spring("America/New_York", "30 2 * * *", "2026-03-07T12:00Z", &["2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"])]
#[case::new_york_autumn("America/New_York", "30 1 * * *", "2026-10-31T12:00Z", &["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"])]
#[case::lord_howe_spring("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T00:00Z", &["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"])]
#[case::lord_howe_autumn("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T00:00Z", &["2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"])]
fn a_fixed_time_fires_once_in_the_night(#[case] zone: &str, #[case] schedule: &str, #[case] from: &str, #[case] expected: &[&str]) {
    let machine = Machine::new(from, &format!("[chain:a]\nschedule = {schedule}\ntimezone = {zone}"));
    let mut play = machine.daemon();
    play.run_until(&(machine.now() + 48 * HOUR).to_string());
    let fired = play.fired();
    assert_eq!(fired, expected.iter().map(|slot| format!("a schedule {slot}")).collect::<Vec<_>>());
    assert_eq!(play.wakes, 2 * 2);
}

#[rstest]
#[case("Europe/Prague", "2026-03-28T23:00Z", 23)]
#[case("Europe/Prague", "2026-10-24T22:00Z", 25)]
#[case("Australia/Lord_Howe", "2026-04-04T13:00Z", 25)]
fn a_wildcard_hour_follows_the_clock(#[case] zone: &str, #[case] from: &str, #[case] hours: usize) {
    let machine = Machine::new(from, &format!("[chain:a]\nschedule = 40 * * * *\ntimezone = {zone}"));
    let mut play = machine.daemon();
    play.run_until(&(machine.now() + i32::try_from(hours).unwrap() * HOUR).to_string());
    assert_eq!(play.fired().len(), hours);
}

// ---- clocks that are none --------------------------------------------------------------------------

#[test]
fn before_the_build_date_only_boot_fires() {
    let machine = Machine::new("1970-01-01T00:00:30Z", &format!("{EVERY_TEN}\n[chain:b]\nschedule = @boot"));
    let mut play = machine.daemon();
    assert_eq!(play.fired(), ["b boot -"]);
    play.run_until("1970-01-01T02:00:00Z");
    assert_eq!(play.fired(), [""; 0]);
    play.jump(at(NOON).duration_since(machine.now()));
    play.run_until("2026-05-04T12:10:00Z");
    // Nobody was there before: this machine begins now.
    assert_eq!(times(&play.fired()).last().unwrap(), "12:10");
}

#[test]
fn before_the_newest_stored_time_only_boot_fires_and_the_alarm_does_not_spin() {
    let machine = Machine::new(NOON, &format!("{EVERY_TEN}\n[chain:b]\nschedule = @boot"));
    let mut play = machine.daemon();
    play.run_until("2026-05-04T12:10:00Z");
    play.stop();
    machine.set("2026-05-04T09:00:00Z");
    let mut play = machine.daemon();
    play.wake();
    assert_eq!(play.fired(), [""; 0], "this boot had its run");
    assert!(play.armed().unwrap() >= at("2026-05-04T12:10:00Z") - LEAD, "it gets there by itself");
    play.run_until("2026-05-04T12:20:00Z");
    assert_eq!(times(&play.fired()), ["12:20"]);
}

#[test]
fn between_a_stored_time_and_the_build_date_the_alarm_waits_for_the_later() {
    let machine = Machine::new("2025-06-01T00:00:00Z", EVERY_TEN);
    machine.daemon().stop();
    machine.set("2025-07-01T00:00:00Z");
    let mut play = machine.daemon();
    play.wake();
    assert_eq!(play.armed(), Some(at("2026-01-01T00:00:00Z")));
}

// ---- what a restart finds --------------------------------------------------------------------------

#[rstest]
#[case::skip("skip", &[])]
#[case::last("last", &["12:40"])]
#[case::all("all", &["12:20", "12:30", "12:40"])]
fn slots_that_passed_while_nothing_ran(#[case] missed: &str, #[case] expected: &[&str]) {
    let machine = Machine::new("2026-05-04T12:05:00Z", &format!("{EVERY_TEN}\nmissed = {missed}"));
    let mut play = machine.daemon();
    play.run_until("2026-05-04T12:15:00Z");
    assert_eq!(times(&play.fired()), ["12:10"]);
    play.stop();
    machine.set("2026-05-04T12:45:00Z");
    let mut play = machine.daemon();
    play.jump(SignedDuration::ZERO);
    assert_eq!(times(&play.fired()), expected);
}

#[rstest]
#[case::skip_at_once("skip", "12:10:30", &["12:10"])]
#[case::skip_later("skip", "12:12:00", &[])]
#[case::skip_newer("skip", "12:20:00", &["12:20"])]
#[case::last_later("last", "12:12:00", &["12:10"])]
#[case::last_newer("last", "12:32:00", &["12:30"])]
#[case::all_later("all", "12:12:00", &["12:10"])]
#[case::all_newer("all", "12:30:00", &["12:10", "12:20", "12:30"])]
fn a_slot_of_a_process_that_is_gone(#[case] missed: &str, #[case] later: &str, #[case] expected: &[&str]) {
    let machine = Machine::new("2026-05-04T12:05:00Z", &format!("{EVERY_TEN}\nmissed = {missed}"));
    machine.daemon().stop();
    // It had claimed the slot, and was killed before anything began.
    claim_for_a_dead_one(&machine, "a", "2026-05-04T12:10:00Z");
    machine.set(&format!("2026-05-04T{later}Z"));
    let mut play = machine.daemon();
    play.jump(SignedDuration::ZERO);
    assert_eq!(times(&play.fired()), expected);
    play.stop();
    assert!(machine.history("a").iter().any(|(slot, _)| *slot == at("2026-05-04T12:10:00Z")), "run or given up, it is told");
    let mut play = machine.daemon();
    play.jump(SignedDuration::ZERO);
    assert_eq!(play.fired(), [""; 0], "once");
}

#[test]
fn slots_that_are_answered_at_one_moment_begin_the_oldest_first() {
    let machine = Machine::new("2026-05-04T12:05:00Z", &format!("{EVERY_TEN}\nmissed = all"));
    machine.daemon().stop();
    claim_for_a_dead_one(&machine, "a", "2026-05-04T12:10:00Z");
    machine.set("2026-05-04T12:30:00Z");
    let mut play = machine.daemon_of(true);
    // What is taken over and what is claimed are two answers, and both wait to be heard.
    play.until_claimed_unheard(3);
    play.settle();
    assert_eq!(times(&play.fired()), ["12:10", "12:20", "12:30"]);
}

fn claim_for_a_dead_one(machine: &Machine, chain: &str, slot: &str) {
    use runner::store::{Owner, Slot, SlotClaim, SlotKey, Store};
    let here = Owner::look();
    let gone = Owner { machine: "machine".into(), start_time: here.start_time + 1, ..here };
    let key = SlotKey { machine: "machine".into(), chain: chain.into(), slot: Slot::At(at(slot)) };
    let claim = SlotClaim { key, run_id: "of-the-dead".into() };
    assert_eq!(machine.store().claim_slots(&[claim], &gone, at(slot)).unwrap(), [true]);
    machine.store().set_watermarks("machine", &[(chain.to_owned(), at(slot))], &gone, at(slot)).unwrap();
}

#[test]
fn a_lost_slot_that_is_older_than_the_window_is_given_up() {
    let machine = Machine::new("2026-05-04T12:05:00Z", "[chain:a]\nschedule = 10 12 4 * *\nmissed = all\nmissed_window = 1h");
    machine.daemon().stop();
    claim_for_a_dead_one(&machine, "a", "2026-05-04T12:10:00Z");
    machine.set("2026-05-04T13:15:00Z");
    let mut play = machine.daemon();
    play.jump(SignedDuration::ZERO);
    assert_eq!((play.fired().len(), play.refused()), (0, vec!["a skipped: older than missed_window".to_owned()]));
    play.stop();
    assert_eq!(machine.history("a"), [(at("2026-05-04T12:10:00Z"), "skipped".to_owned())]);
}

#[test]
fn a_run_that_was_written_down_and_never_started_is_run_after_a_crash() {
    use runner::store::record::{Occasion, RunRecord};
    use runner::store::{Owner, Slot, SlotClaim, SlotKey, Store};
    let machine = Machine::new("2026-05-04T12:05:00Z", &format!("{EVERY_TEN}\nmissed = all"));
    let mut play = machine.daemon();
    play.run_until("2026-05-04T12:10:00Z");
    assert_eq!(play.fired().len(), 1);
    play.stop();
    let here = Owner::look();
    let gone = Owner { machine: "machine".into(), start_time: here.start_time + 1, ..here };
    let slot = at("2026-05-04T12:20:00Z");
    let key = SlotKey { machine: "machine".into(), chain: "a".into(), slot: Slot::At(slot) };
    let occasion = Occasion { trigger: "schedule".into(), scheduled_at: Some(slot) };
    let run = RunRecord::begun("never", "a", occasion, &gone, slot);
    machine.store().claim_and_begin(&[SlotClaim { key, run_id: "never".into() }], &[run], &gone, slot).unwrap();
    machine.store().set_watermarks("machine", &[("a".to_owned(), slot)], &gone, slot).unwrap();
    machine.set("2026-05-04T12:21:00Z");
    let mut play = machine.daemon();
    play.jump(SignedDuration::ZERO);
    assert_eq!(play.fired(), ["a missed 2026-05-04T12:20:00+00:00"]);
}

// ---- stores that go away ---------------------------------------------------------------------------

#[test]
fn nothing_fires_before_the_state_is_known_and_everything_due_after() {
    let machine = Machine::new("2026-05-04T12:05:00Z", &format!("{EVERY_TEN}\nmissed = all"));
    machine.daemon().stop();
    machine.away.store(true, Ordering::SeqCst);
    let mut play = machine.daemon_of(true);
    for _ in 0..3 {
        play.pass(10 * MINUTE);
        play.wake();
    }
    assert_eq!(play.fired(), [""; 0]);
    machine.away.store(false, Ordering::SeqCst);
    play.until(|play| play.count() >= 3);
    play.settle();
    assert_eq!(times(&play.fired()), ["12:10", "12:20", "12:30"]);
}

#[test]
fn limits_hold_while_the_store_is_away() {
    let machine = Machine::new("2026-05-04T12:05:00Z", &format!("{EVERY_TEN}\nmax_time = 60\nmax_tries = 1\nkill_after = 3600"))
        .task("a", ": > $SCENE/begun; while :; do sleep 5 & wait $!; done");
    let mut play = machine.daemon();
    play.wake_after(5 * MINUTE);
    play.until(|play| play.count() == 1);
    machine.away.store(true, Ordering::SeqCst);
    play.wake_after(10 * MINUTE);
    // The run has ended when its end waits to be written; the next slot waits for the store.
    play.until(|play| !play.is_running());
    machine.away.store(false, Ordering::SeqCst);
    play.until(|_| machine.history("a").first().is_some_and(|(_, outcome)| outcome == "gave_up"));
    play.stop();
}

#[rstest]
#[case("last", &["12:10", "14:00"])]
#[case("skip", &["12:10", "14:00"])]
fn hours_without_a_store_are_hours_that_were_missed(#[case] missed: &str, #[case] expected: &[&str]) {
    let machine = Machine::new("2026-05-04T12:05:00Z", &format!("{EVERY_TEN}\nmissed = {missed}"));
    let mut play = machine.daemon();
    machine.away.store(true, Ordering::SeqCst);
    while machine.now() < at("2026-05-04T14:00:00Z") {
        play.pass(5 * MINUTE);
        play.wake();
    }
    assert_eq!(play.fired(), [""; 0]);
    machine.away.store(false, Ordering::SeqCst);
    play.until(|play| play.count() >= expected.len());
    play.settle();
    // The first was asked for when it was due; of those that came while the store was away, the newest.
    assert_eq!(times(&play.fired()), expected);
}

#[test]
fn a_tick_whose_store_goes_away_does_not_wait_for_ever() {
    let machine = Machine::new(NOON, "[chain:a]\nschedule = * * * * *").task("a", ": > $SCENE/begun");
    let mut play = machine.daemon_of(true);
    play.begin_tick();
    play.until(|play| play.count() == 1);
    machine.away.store(true, Ordering::SeqCst);
    play.until(|play| !play.is_running());
    play.wake();
    play.wake_after(11 * MINUTE);
    let ended = play.ended.take();
    assert!(ended.is_some_and(|ended| ended.no_state.is_some()), "74, by its own deadline");
}

// ---- configurations that change --------------------------------------------------------------------

#[test]
fn a_new_schedule_catches_nothing_up_and_an_old_one_loses_nothing() {
    let machine = Machine::new("2026-05-04T12:05:00Z", "[chain:a]\nschedule = 10 * * * *\n[chain:b]\nschedule = 10 * * * *");
    let mut play = machine.daemon();
    machine.configure("[chain:a]\nschedule = 10 * * * *\n[chain:b]\nschedule = 8 * * * *\n[chain:c]\nschedule = 9 * * * *");
    play.files_changed();
    // It is seen when the slot is due.
    play.run_until("2026-05-04T12:10:00Z");
    assert_eq!(play.fired(), ["a schedule 2026-05-04T12:10:00+00:00"]);
    play.run_until("2026-05-04T13:09:00Z");
    assert_eq!(times(&play.fired()), ["13:08", "13:09"]);
}

#[test]
fn two_signals_to_reload_and_a_file_that_is_gone() {
    let machine = Machine::new("2026-05-04T12:05:00Z", EVERY_TEN);
    let mut play = machine.daemon();
    play.signal(1);
    play.signal(1);
    fs::rename(machine.path("runner.cfg"), machine.path("away")).unwrap();
    play.signal(1);
    play.files_changed();
    play.run_until("2026-05-04T12:10:00Z");
    assert_eq!(times(&play.fired()), ["12:10"], "the old one stays");
    fs::rename(machine.path("away"), machine.path("runner.cfg")).unwrap();
    play.signal(1);
    play.run_until("2026-05-04T12:20:00Z");
    assert_eq!(times(&play.fired()), ["12:20"]);
}

#[test]
fn a_chain_that_is_disabled_does_not_fire_and_catches_nothing_up() {
    let machine = Machine::new("2026-05-04T12:05:00Z", &format!("{EVERY_TEN}\nenabled = no\nmissed = all"));
    let mut play = machine.daemon();
    play.run_until("2026-05-04T12:30:00Z");
    assert_eq!((play.fired().len(), play.wakes), (0, 0));
    machine.configure(&format!("{EVERY_TEN}\nmissed = all"));
    play.signal(1);
    play.wake();
    play.run_until("2026-05-04T12:40:00Z");
    assert_eq!(times(&play.fired()), ["12:40"]);
}

#[test]
fn a_chain_that_is_taken_away_ends_and_its_next_slot_is_given_up() {
    let machine = Machine::new("2026-05-04T12:05:00Z", &format!("{EVERY_TEN}\noverlap = queue\nmax_time = 0"))
        .task("a", ": > $SCENE/begun; while [ ! -e $SCENE/go ]; do sleep 0.01; done");
    let mut play = machine.daemon();
    play.wake_after(5 * MINUTE);
    play.until(|play| play.count() == 1);
    play.wake_after(10 * MINUTE);
    play.until(|_| machine.store_has_slots(2));
    // The claim is answered: the slot waits for the run.
    play.wake();
    machine.configure("[chain:b]\nschedule = 0 0 29 2 *");
    play.signal(1);
    fs::write(machine.path("go"), "").unwrap();
    play.until(|play| !play.is_running());
    play.settle();
    assert_eq!(play.count(), 1);
    play.stop();
    let history: Vec<String> = machine.history("a").into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(history, ["done", "skipped"]);
}

// ---- ends ------------------------------------------------------------------------------------------

#[test]
fn told_to_stop_while_slots_are_asked_for_it_leaves_them_to_the_next() {
    let machine = Machine::new("2026-05-04T12:05:00Z", &format!("{EVERY_TEN}\nmissed = all"));
    let mut play = machine.doomed_daemon();
    play.pass(5 * MINUTE);
    play.ask_and_stop();
    assert_eq!(machine.history("a"), []);
    machine.set("2026-05-04T12:12:00Z");
    let mut play = machine.daemon();
    play.jump(SignedDuration::ZERO);
    assert_eq!(play.fired(), ["a missed 2026-05-04T12:10:00+00:00"]);
}

#[test]
fn a_wish_to_reload_while_it_stops_kills_nobody() {
    let machine = Machine::new("2026-05-04T12:05:00Z", &format!("{EVERY_TEN}\nkill_after = 3600\nmax_tries = 1"))
        .task("a", "trap ': > $SCENE/told; while [ ! -e $SCENE/go ]; do sleep 0.01; done; : > $SCENE/cleaned; exit 0' TERM\n: > $SCENE/begun\nwhile :; do sleep 0.01; done");
    let mut play = machine.daemon();
    play.wake_after(5 * MINUTE);
    play.until(|play| play.count() == 1);
    play.wait_for_file("begun");
    play.signal(15);
    play.wait_for_file("told");
    play.signal(1);
    fs::write(machine.path("go"), "").unwrap();
    play.until(|_| false);
    assert!(machine.path("cleaned").exists());
}

#[test]
fn a_newer_slot_stops_the_run_once() {
    let machine = Machine::new("2026-05-04T12:05:00Z", &format!("{EVERY_TEN}\nkill_after = 36000\nmax_time = 0\nmax_tries = 1\noverlap = replace"))
        .task("a", "trap ': > $SCENE/told; while [ ! -e $SCENE/go ]; do sleep 0.01; done; : > $SCENE/cleaned; exit 0' TERM\n: > $SCENE/begun\nwhile [ ! -e $SCENE/go ]; do sleep 0.01; done");
    let mut play = machine.daemon();
    play.wake_after(5 * MINUTE);
    play.until(|play| play.count() == 1);
    play.wait_for_file("begun");
    for _ in 0..3 {
        play.pass(10 * MINUTE);
        play.wake();
        play.until_claimed();
    }
    play.wait_for_file("told");
    fs::write(machine.path("go"), "").unwrap();
    play.until(|play| play.count() == 2);
    play.settle();
    assert!(machine.path("cleaned").exists(), "who is told twice is killed at once");
    assert_eq!(times(&play.fired()), ["12:10", "12:40"]);
    assert_eq!(play.refused().len(), 2);
}

#[test]
fn idle_chains_follow_while_time_is_left() {
    let config = "[chain:a]\nschedule = 10 * * * *\n[chain:i]\nschedule = 10 * * * *\nidle = yes\nwindow = 120\n[chain:j]\nschedule = 10 * * * *\nidle = yes\nwindow = 60";
    let machine = Machine::new("2026-05-04T12:05:00Z", config).task("a", "while [ ! -e $SCENE/go ]; do sleep 0.01; done");
    let mut play = machine.daemon();
    play.wake_after(5 * MINUTE);
    play.until(|play| play.count() == 1);
    play.wake_after(SignedDuration::from_secs(61));
    assert_eq!(play.refused(), ["j skipped: its window of 60 s is over"], "what it waits for still runs");
    fs::write(machine.path("go"), "").unwrap();
    play.until(|play| play.count() == 2);
    play.settle();
    assert_eq!(play.fired(), ["a schedule 2026-05-04T12:10:00+00:00", "i schedule 2026-05-04T12:10:00+00:00"]);
}

#[test]
fn idle_slots_that_are_taken_over_follow_each_other_in_windows_of_their_own() {
    let says = "echo \"$RUNNER_CHAIN begins$RUNNER_TIME_LEFT\" >> $SCENE/said\nsleep 0.05\necho \"$RUNNER_CHAIN ends\" >> $SCENE/said";
    let idle = |name: &str| format!("[chain:{name}]\nschedule = 10 * * * *\nidle = yes\nwindow = 60\n");
    let config = format!("[chain:a]\nschedule = 10 * * * *\n{}{}", idle("i"), idle("j"));
    let machine = Machine::new("2026-05-04T12:05:00Z", &config).task("a", says).task("i", says).task("j", says);
    machine.daemon().stop();
    ["i", "a", "j"].iter().for_each(|chain| claim_for_a_dead_one(&machine, chain, "2026-05-04T12:10:00Z"));
    machine.set("2026-05-04T12:30:00Z");
    let mut play = machine.daemon();
    play.until(|play| play.count() == 3);
    play.settle();
    let said = fs::read_to_string(machine.path("said")).unwrap();
    assert_eq!(said.lines().collect::<Vec<_>>(), ["a begins", "a ends", "i begins60", "i ends", "j begins60", "j ends"]);
}

#[test]
fn a_newer_slot_of_an_idle_chain_takes_the_place_of_one_that_waits() {
    let config = "[chain:a]\nschedule = 10 * * * *\nmax_time = 0\n[chain:i]\nschedule = 10,20 * * * *\nidle = yes\nwindow = 3000";
    let machine = Machine::new("2026-05-04T12:05:00Z", config).task("a", "while [ ! -e $SCENE/go ]; do sleep 0.01; done");
    let mut play = machine.daemon();
    play.wake_after(5 * MINUTE);
    play.until(|play| play.count() == 1);
    play.wake_after(10 * MINUTE);
    play.until(|play| play.count() == 2);
    fs::write(machine.path("go"), "").unwrap();
    play.settle();
    assert_eq!(play.fired(), ["a schedule 2026-05-04T12:10:00+00:00", "i schedule 2026-05-04T12:20:00+00:00"], "nothing runs out of order");
    assert_eq!(play.refused(), ["i skipped: a newer slot of it has come"]);
}

#[test]
fn an_idle_slot_that_waits_for_its_own_run_is_given_up_at_the_end_of_its_window() {
    let config = "[chain:i]\nschedule = */10 * * * *\nmax_time = 0\nidle = yes\nwindow = 60\noverlap = queue";
    let machine = Machine::new("2026-05-04T12:05:00Z", config).task("i", "while [ ! -e $SCENE/go ]; do sleep 0.01; done");
    let mut play = machine.daemon();
    play.wake_after(5 * MINUTE);
    play.until(|play| play.count() == 1);
    play.wake_after(10 * MINUTE);
    play.until_claimed();
    play.wake();
    assert_eq!(play.armed(), Some(at("2026-05-04T12:21:00Z")), "the end of its window");
    play.wake_after(MINUTE);
    assert_eq!(play.refused(), ["i skipped: its window of 60 s is over"]);
    fs::write(machine.path("go"), "").unwrap();
    play.settle();
    assert_eq!(play.fired(), ["i schedule 2026-05-04T12:10:00+00:00"]);
}

#[test]
fn the_window_of_an_idle_chain_begins_when_its_slot_fires() {
    let config =
        "[chain:i]\nschedule = 0 * * * *\nidle = yes\nrandom_delay = 50min\n[chain:s]\nschedule = every 20s\nidle = yes\nwindow = 3";
    let machine = Machine::new("2026-05-04T12:59:50Z", config);
    let mut play = machine.daemon();
    play.run_until("2026-05-04T13:59:50Z");
    let fired = play.fired();
    assert_eq!(fired.iter().filter(|line| line.starts_with("i ")).count(), 1, "its delay is longer than its window");
    assert_eq!(fired.iter().filter(|line| line.starts_with("s ")).count(), 180, "its slots are not all at the full minute");
    assert_eq!(play.refused(), Vec::<String>::new());
}

#[test]
fn a_random_delay_moves_the_moment_and_not_the_slot() {
    let machine = Machine::new("2026-05-04T12:05:00Z", "[chain:a]\nschedule = 0 * * * *\nrandom_delay = 50min");
    let mut play = machine.daemon();
    play.run_until("2026-05-04T14:59:00Z");
    assert_eq!(times(&play.fired()).last().unwrap(), "14:00");
    let delay = runner::schedule::agenda::stable_delay("machine", "a", std::time::Duration::from_secs(3000));
    let next = play.armed().unwrap();
    assert_eq!(next, at("2026-05-04T15:00:00Z") + SignedDuration::try_from(delay).unwrap() - LEAD);
}

#[test]
fn a_thousand_runs_leave_nothing_in_memory() {
    let machine = Machine::new(NOON, "[chain:a]\nschedule = * * * * *\n[chain:b]\nschedule = * * * * *");
    let mut play = machine.daemon();
    play.run_until("2026-05-04T15:20:00Z");
    assert_eq!(play.fired().len(), 400);
    assert_eq!(play.remembered(), 0);
}
