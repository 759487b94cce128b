//! The configuration changes while slots wait: the new one says until when they may, and for what.

use std::fs;

use jiff::SignedDuration;
use rstest::rstest;

use crate::play::{MINUTE, Machine, Play, at};

const A: &str = "[chain:a]\nschedule = 10 * * * *\nmax_time = 0\n";
/// A task that goes on until it is told to end.
const GOES_ON: &str = "while [ ! -e $SCENE/go ]; do sleep 0.01; done";

fn idle(keys: &str) -> String {
    format!("{A}[chain:i]\nschedule = 10 * * * *\n{keys}\n")
}

/// At 12:10 `a` runs until it is told to end, and the slot of `i`, which is idle for 120 s, waits for it.
fn machine() -> Machine {
    let says = "echo \"$RUNNER_CHAIN $RUNNER_TIME_LEFT\" >> $SCENE/said";
    Machine::new("2026-05-04T12:05:00Z", &idle("idle = yes\nwindow = 120")).task("a", GOES_ON).task("i", says)
}

fn begin(play: &mut Play<'_>) {
    play.wake_after(5 * MINUTE);
    play.until(|play| play.count() == 1);
    play.until_claimed();
    play.wake();
    assert_eq!(play.armed(), Some(at("2026-05-04T12:12:00Z")), "the end of its window");
}

fn reload(play: &mut Play<'_>, machine: &Machine, config: &str) {
    machine.configure(config);
    play.signal(1);
    play.wake();
}

#[test]
fn a_longer_window_is_that_of_a_slot_that_waits_already() {
    let machine = machine();
    let mut play = machine.daemon();
    begin(&mut play);
    play.wake_after(MINUTE);
    reload(&mut play, &machine, &idle("idle = yes\nwindow = 600"));
    assert_eq!(play.armed(), Some(at("2026-05-04T12:20:00Z")), "from the moment at which the slot fired");
    play.wake_after(4 * MINUTE);
    assert_eq!(play.refused(), [""; 0]);
    fs::write(machine.path("go"), "").unwrap();
    play.until(|play| play.count() == 2);
    play.settle();
    assert_eq!(fs::read_to_string(machine.path("said")).unwrap(), "i 300\n");
}

#[test]
fn a_shorter_window_is_over_at_once_where_it_is() {
    let machine = machine();
    let mut play = machine.daemon();
    begin(&mut play);
    play.wake_after(SignedDuration::from_secs(90));
    reload(&mut play, &machine, &idle("idle = yes\nwindow = 60"));
    assert_eq!(play.refused(), ["i skipped: its window of 60 s is over"]);
    fs::write(machine.path("go"), "").unwrap();
    play.settle();
    assert_eq!(play.count(), 1);
}

#[test]
fn what_is_idle_no_more_waits_for_nobody() {
    let machine = machine();
    let mut play = machine.daemon();
    begin(&mut play);
    reload(&mut play, &machine, &idle("idle = no\nwindow = 60"));
    play.until(|play| play.count() == 2);
    play.wake_after(5 * MINUTE);
    fs::write(machine.path("go"), "").unwrap();
    play.settle();
    assert_eq!((play.refused(), fs::read_to_string(machine.path("said")).unwrap().as_str()), (Vec::new(), "i \n"));
}

#[rstest]
#[case::gone(A)]
#[case::disabled("[chain:a]\nschedule = 10 * * * *\nmax_time = 0\n[chain:i]\nschedule = 10 * * * *\nidle = yes\nenabled = no\n")]
fn the_slot_of_a_chain_that_is_gone_is_given_up_at_once(#[case] config: &str) {
    let machine = machine();
    let mut play = machine.daemon();
    begin(&mut play);
    reload(&mut play, &machine, config);
    play.wake();
    assert_eq!((play.count(), play.armed() > Some(at("2026-05-04T13:00:00Z"))), (1, true));
    fs::write(machine.path("go"), "").unwrap();
    play.settle();
    play.stop();
    let of = |chain: &str| machine.history(chain).into_iter().map(|(_, outcome)| outcome).collect::<Vec<_>>();
    assert_eq!((of("a"), of("i")), (vec!["done".to_owned()], vec!["skipped".to_owned()]));
}

/// That it waits was decided when it came; the window of what is idle now counts from then.
#[rstest]
#[case::it_stays_decided("overlap = skip", &["12:10", "12:20"], None)]
#[case::nothing_is_stopped_for_it("overlap = replace", &["12:10", "12:20"], None)]
#[case::it_has_a_window("overlap = queue\nidle = yes\nwindow = 300", &["12:10"], Some("q skipped: its window of 300 s is over"))]
#[case::it_is_gone("enabled = no", &["12:10"], None)]
fn a_slot_that_waits_for_the_run_before_it(#[case] keys: &str, #[case] fired: &[&str], #[case] refused: Option<&str>) {
    let chain = |keys: &str| format!("[chain:q]\nschedule = 10,20 * * * *\nmax_time = 0\n{keys}\n");
    let machine = Machine::new("2026-05-04T12:05:00Z", &chain("overlap = queue")).task("q", GOES_ON);
    let mut play = machine.daemon();
    play.wake_after(5 * MINUTE);
    play.until(|play| play.count() == 1);
    play.wake_after(10 * MINUTE);
    play.until_claimed();
    play.wake();
    reload(&mut play, &machine, &chain(keys));
    play.wake_after(6 * MINUTE);
    assert_eq!(play.refused(), refused.into_iter().collect::<Vec<_>>());
    fs::write(machine.path("go"), "").unwrap();
    play.until(|play| !play.is_running());
    play.settle();
    assert_eq!(crate::times(&play.fired()), fired);
    play.stop();
    let ended: Vec<String> = machine.history("q").into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(ended, ["done", if fired.len() == 2 { "done" } else { "skipped" }]);
}
