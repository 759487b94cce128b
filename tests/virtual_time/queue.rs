//! Jobs of a daemon that was frozen, or whose database was away for longer than the lease.

use std::fs;
use std::process::Command;
use std::sync::atomic::Ordering;

use jiff::SignedDuration;
use rstest::rstest;
use runner::queue::JobState;
use runner::store::Store;
use runner::store::job::NewJob;

use crate::NOON;
use crate::play::{Machine, Play};

/// Longer than a lease is trusted, and not as long as it is.
const SPELL: SignedDuration = SignedDuration::from_secs(50);

/// A machine whose only job notes its attempts, and waits for a word.
fn machine(bells: bool) -> Machine {
    let task = "echo $RUNNER_TRY >>\"$SCENE/ran\"; read word <\"$SCENE/go\"";
    let mut machine = Machine::new(NOON, "[daemon]\nqueues = *\n[queue:q]\npoll = 1s\nmax_time = 0").task("q", task);
    machine.bells = bells;
    assert!(Command::new("mkfifo").arg(machine.path("go")).status().unwrap().success());
    let job = NewJob { queue: "q".into(), task: "1-task.sh".into(), ..NewJob::default() };
    machine.store().enqueue(&[job], machine.now()).unwrap();
    machine
}

fn state(machine: &Machine) -> JobState {
    machine.job().state(machine.now())
}

fn ran(machine: &Machine) -> String {
    fs::read_to_string(machine.path("ran")).unwrap_or_default()
}

/// A daemon whose job runs.
fn works(machine: &Machine) -> Play<'_> {
    let mut play = machine.daemon();
    play.until(|_| state(machine) == JobState::Running);
    play.wait_for_file("ran");
    play
}

/// The job gets its word, and is done.
fn comes_to_its_end(machine: &Machine, mut play: Play<'_>) {
    fs::write(machine.path("go"), "now\n").unwrap();
    play.until(|_| state(machine) == JobState::Done);
    play.stop();
}

fn renewed(machine: &Machine) -> bool {
    machine.job().lease_until.is_some_and(|until| until > machine.now())
}

#[rstest]
#[case::within_the_lease(SPELL)]
#[case::beyond_it(SPELL * 100)]
fn a_job_outlives_a_worker_that_was_frozen(#[case] spell: SignedDuration) {
    let machine = machine(false);
    let mut play = works(&machine);
    play.pass(spell);
    play.wake();
    play.until(|_| renewed(&machine));
    comes_to_its_end(&machine, play);
    assert_eq!((ran(&machine).as_str(), machine.job().attempts), ("1\n", 1));
}

#[test]
fn a_job_outlives_a_full_disk_where_its_worker_is_seen_to_live() {
    let machine = machine(true);
    let mut play = works(&machine);
    machine.away.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        play.pass(SPELL);
        play.wake();
        assert_eq!(state(&machine), JobState::Running);
    }
    machine.away.store(false, Ordering::SeqCst);
    play.until(|_| renewed(&machine));
    comes_to_its_end(&machine, play);
    assert_eq!((ran(&machine).as_str(), machine.job().attempts), ("1\n", 1));
}

#[test]
fn a_job_that_was_ended_because_it_may_begin_elsewhere_had_an_attempt() {
    let machine = machine(false);
    let mut play = works(&machine);
    machine.away.store(true, Ordering::SeqCst);
    play.pass(SPELL);
    play.wake();
    play.pass(SignedDuration::from_secs(3));
    play.wake();
    machine.away.store(false, Ordering::SeqCst);
    play.until(|_| ran(&machine) == "1\n2\n");
    comes_to_its_end(&machine, play);
    assert_eq!(machine.job().attempts, 2);
}
