//! Nothing is left behind, and nothing else is touched: what a failed or stopped try started is ended
//! however it tried to get away, and what a good one left on purpose stays.

use rstest::rstest;
use rustix::process::Signal;

use crate::alive;
use crate::scene::{Outcome, Scene};

const RUNAWAYS: &str = "child { pause } group-child { ignore TERM pause } setsid-child { pause } daemon { ignore TERM pause }";

fn scene(settings: &str) -> Scene {
    Scene::new().config(&format!("[runner]\nmax_tries = 1\nkill_after = 0.3\nhalt_on_give_up = no\n{settings}"))
}

#[test]
fn nothing_outlives_a_time_out() {
    scene("max_time = 0.5\n")
        .task("1-a.sh", &format!("play {RUNAWAYS} ignore TERM pause"))
        .run(&[])
        .exits(1)
        .nothing_alive()
        .quicker_than(9);
}

#[test]
fn nothing_outlives_a_failure() {
    scene("").task("1-a.sh", &format!("play {RUNAWAYS} exit 1")).run(&[]).exits(1).nothing_alive().quicker_than(9);
}

#[test]
fn nothing_outlives_a_stop() {
    let mut running = scene("").task("1-a.sh", &format!("play {RUNAWAYS} touch begun ignore TERM pause")).start(&[]);
    running.wait_for_file("begun").signal(Signal::TERM);
    running.finish().dies_of(Signal::TERM).nothing_alive();
}

#[test]
fn nothing_outlives_a_cancellation() {
    scene("max_parallel = 2\n")
        .task("1-a.sh", "probe wait-file begun; exit 2")
        .task("1-b.sh", &format!("play {RUNAWAYS} touch begun pause"))
        .task("halt.sh", "exit 0")
        .run(&[])
        .exits(3)
        .nothing_alive();
}

#[test]
fn nothing_outlives_a_task_that_died_of_a_signal() {
    scene("").task("1-a.sh", &format!("play {RUNAWAYS} die KILL")).run(&[]).exits(1).nothing_alive();
}

#[test]
fn nothing_outlives_a_halt() {
    // HALT is a failure of that task: what it left is ended before the halt task runs.
    scene("").task("1-a.sh", &format!("play {RUNAWAYS} exit 2")).task("halt.sh", "exit 0").run(&[]).exits(3).nothing_alive();
}

#[test]
fn the_next_try_meets_nothing_of_the_last() {
    let left = "if [ \"$RUNNER_TRY\" = 1 ]; then probe daemon { pid-file left ignore TERM pause }; exit 1; fi\n\
        [ -e \"/proc/$(cat \"$SCENE/left\")\" ] && exit 1\nexit 0";
    Scene::new().config("[runner]\nmax_tries = 2\nkill_after = 0.3\n").task("1-a.sh", left).run(&[]).exits(0).gone("left");
}

/// Those who left no trace of where they come from are ended or named, never forgotten.
#[rstest]
#[case("daemon-clean")]
#[case("setsid-child-clean")]
fn who_cleared_its_environment_is_ended_or_reported(#[case] kin: &str) {
    let run = scene("max_time = 0.6\n").task("1-a.sh", &format!("play {kin} {{ pid-file left pause }} pause")).run(&[]);
    let run = run.exits(1);
    let pid = run.pid_in("left");
    assert!(!alive::is_alive(pid) || run.stderr_text().contains(&pid.to_string()), "{pid} lives, and nobody says so{run}");
}

#[test]
fn a_child_with_a_cleared_environment_in_the_group_is_ended() {
    scene("max_time = 0.6\n")
        .task("1-a.sh", "env -i \"$PROBE\" --scene \"$SCENE\" pid-file left pause & play wait-file left pause")
        .run(&[])
        .exits(1)
        .gone("left");
}

#[test]
fn a_storm_of_forks_is_ended() {
    scene("max_time = 0.5\n").task("1-a.sh", "play ignore TERM fork-bomb 30 150 pause").run(&[]).exits(1).nothing_alive().quicker_than(9);
}

#[test]
fn a_storm_of_forks_is_ended_after_its_task() {
    scene("").task("1-a.sh", "play fork-bomb 30 150 exit 1").run(&[]).exits(1).nothing_alive().quicker_than(9);
}

// ---- the setting -------------------------------------------------------------------------------

const LEFT: &str = "child { pid-file group pause } setsid-child { pid-file session pause } daemon { pid-file daemon pause }";

fn assert_alive(run: Outcome, which: [&str; 3]) -> Outcome {
    which.into_iter().fold(run, Outcome::alive)
}

fn assert_gone(run: Outcome, which: [&str; 3]) -> Outcome {
    which.into_iter().fold(run, Outcome::gone)
}

const ALL: [&str; 3] = ["group", "session", "daemon"];

#[rstest]
#[case("")]
#[case("sweep = on-failure\n")]
#[case("sweep = never\n")]
fn what_a_good_task_leaves_stays(#[case] sweep: &str) {
    let run = scene(sweep).task("1-a.sh", &format!("play {LEFT} exit 0")).task("2-b.sh", "exit 0").run(&[]).exits(0);
    assert_alive(run, ALL);
}

#[test]
fn always_ends_what_a_good_task_leaves() {
    let run =
        scene("sweep = always\n").task("1-a.sh", &format!("play {LEFT} exit 0")).task("2-b.sh", "exit 0").run(&[]).exits(0).nothing_alive();
    assert_gone(run, ALL);
}

#[test]
fn a_skipped_task_is_no_failed_one() {
    let run = scene("skip_codes = 75\n").task("1-a.sh", &format!("play {LEFT} exit 75")).run(&[]).exits(0);
    assert_alive(run, ALL);
}

#[test]
fn never_leaves_what_a_failed_task_left() {
    let run = scene("sweep = never\n").task("1-a.sh", &format!("play {LEFT} exit 1")).run(&[]).exits(1);
    assert_alive(run, ALL);
}

#[test]
fn never_still_ends_the_group_of_a_time_out_and_reports_the_rest() {
    let run = scene("sweep = never\nmax_time = 0.5\n")
        .task("1-a.sh", &format!("play {LEFT} pause"))
        .run_logged(&[])
        .exits(1)
        .gone("group")
        .alive("session")
        .alive("daemon")
        .warns();
    assert!(!run.stderr.is_empty());
}

#[test]
fn never_still_ends_those_of_the_group_who_ignore_term() {
    scene("sweep = never\nmax_time = 0.5\n")
        .task("1-a.sh", "play child { ignore TERM pid-file group pause } pause")
        .run(&[])
        .exits(1)
        .gone("group")
        .quicker_than(9);
}

#[test]
fn one_task_may_be_swept_otherwise() {
    scene("[task:a]\nsweep = always\n")
        .task("1-a.sh", "play daemon { pid-file a pause }")
        .task("2-b.sh", "play daemon { pid-file b pause }")
        .run(&[])
        .exits(0)
        .gone("a")
        .alive("b");
}

// ---- what a good task left is nobody's to end --------------------------------------------------

#[rstest]
#[case::failure("play child { pause } exit 1", 1)]
#[case::time_out("play ignore TERM pause", 1)]
#[case::halt("exit 2", 3)]
#[case::stop_code("exit 3", 5)]
fn it_survives_what_befalls_later_tasks(#[case] body: &str, #[case] code: i32) {
    let run = scene("max_time = 1\nstop_codes = 3\n")
        .task("1-a.sh", &format!("play {LEFT} exit 0"))
        .task("2-b.sh", body)
        .task("halt.sh", "exit 0")
        .run(&[])
        .exits(code);
    assert_alive(run, ALL);
}

#[test]
fn it_survives_the_failure_of_a_sibling() {
    let run = scene("max_parallel = 2\n")
        .task("1-a.sh", "play daemon { pid-file daemon pause } exit 0")
        .task("1-b.sh", "probe wait-file daemon; play daemon { pid-file other pause } exit 1")
        .run(&[])
        .exits(1);
    run.alive("daemon").gone("other");
}

#[rstest]
#[case(Signal::TERM)]
#[case(Signal::INT)]
fn it_survives_that_runner_is_stopped(#[case] signal: Signal) {
    let mut running = scene("").task("1-a.sh", &format!("play {LEFT} exit 0")).task("2-b.sh", "play touch begun pause").start(&[]);
    running.wait_for_file("begun").signal(signal);
    assert_alive(running.finish().dies_of(signal), ALL);
}

#[test]
fn it_survives_a_second_signal() {
    let mut running = scene("")
        .task("1-a.sh", &format!("play {LEFT} exit 0"))
        .task("2-b.sh", "play ignore TERM pid-file task touch begun pause")
        .config("kill_after = 600\n")
        .start(&[]);
    running.wait_for_file("begun").insist(Signal::TERM);
    let run = running.finish().dies_of(Signal::TERM).gone("task");
    assert_alive(run, ALL);
}

#[test]
fn it_survives_its_own_next_try() {
    // The chain begins again, and the first try of the good task was good.
    let run = Scene::new()
        .config("[runner]\nmax_tries = 2\nkill_after = 0.3\n")
        .task("1-a.sh", "once && probe daemon { pid-file daemon pause }; exit 0")
        .task("2-b.sh", "once && exit 1; exit 0")
        .run(&[])
        .exits(0);
    run.alive("daemon");
}

#[rstest]
#[case::of_a_task_that_failed("exit 1")]
#[case::of_a_task_that_was_ended("play pause")]
fn who_was_there_before_runner_is_neither_ended_nor_told_of(#[case] task: &str) {
    // What an entry point of a container leaves that executes runner at its end.
    let run = Scene::new()
        .through(&["child", "{", "pid-file", "before", "pause", "}", "setsid-child-clean", "{", "pid-file", "far", "pause", "}"])
        .config("[runner]\nmax_tries = 1\nmax_time = 1\nkill_after = 1\nsweep = always\n")
        .task("1-a.sh", task)
        .run_logged(&[])
        .exits(1)
        .alive("before")
        .alive("far");
    assert_eq!(run.events("task_ended")[0]["left_behind"], 0);
    assert!(run.events("left_behind").is_empty());
}
